//! Resource policies: who may do what with a stream or a consumer, as IAM's policy language says it.
//!
//! Follows "Policies and permissions in IAM" as far as it makes sense here. What is not understood is
//! refused when a policy is put, never passed over when it is asked.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::names::Scope;

/// Largest policy (AWS: 20 KB).
pub const POLICY_BYTES_MAX: usize = 20 << 10;

/// Keys that conditions may ask for.
const PRINCIPAL_ACCOUNT: &str = "aws:PrincipalAccount";
const PRINCIPAL_ARN: &str = "aws:PrincipalArn";
const REQUESTED_REGION: &str = "aws:RequestedRegion";

/// The text is not a policy that hydrant can enforce, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPolicy(String);

fn invalid<T>(why: impl Into<String>) -> Result<T, InvalidPolicy> {
    Err(InvalidPolicy(why.into()))
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The account and region of the call.
    pub scope: &'a Scope,
    /// The access key that signed it. As IAM names it, it is `user/` of this name.
    pub access_key: &'a str,
}

/// What a policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A statement forbids it, whatever others say.
    Denied,
    /// A statement allows it, and none forbids it.
    Allowed,
    /// No statement is about it.
    Silent,
}

/// A policy: the text as it was put, and what it means.
#[derive(Clone, Debug)]
pub struct Policy {
    text: String,
    statements: Vec<Statement>,
}

#[derive(Clone, Debug)]
struct Statement {
    allows: bool,
    principals: Vec<Principal>,
    actions: Vec<String>,
    resources: Vec<String>,
    conditions: Vec<Condition>,
}

/// Whom a statement is about.
#[derive(Clone, Debug)]
enum Principal {
    Everyone,
    /// Everyone of an account.
    Account(String),
    /// One user of an account.
    User(String, String),
    /// A role or a service: nobody who calls hydrant is one.
    Nobody,
}

#[derive(Clone, Debug)]
struct Condition {
    key: &'static str,
    test: Test,
    negated: bool,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Test {
    Equals,
    EqualsIgnoreCase,
    Like,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Document {
    version: Option<String>,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: OneOrMany<StatementText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct StatementText {
    sid: Option<String>,
    effect: String,
    principal: Option<PrincipalText>,
    action: Option<OneOrMany<String>>,
    resource: Option<OneOrMany<String>>,
    condition: Option<ConditionText>,
    not_principal: Option<serde::de::IgnoredAny>,
    not_action: Option<serde::de::IgnoredAny>,
    not_resource: Option<serde::de::IgnoredAny>,
}

/// By operator, then by key.
type ConditionText = Members<Members<OneOrMany<String>>>;

enum PrincipalText {
    Word(String),
    Kinds(Members<OneOrMany<String>>),
}

/// The members of an object in their order, each once: of two alike, one would be passed over.
struct Members<T>(Vec<(String, T)>);

/// One, or a list of them.
struct OneOrMany<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = Members<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, T)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom(format!("{name} is there twice")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        d.deserialize_map(V(PhantomData))
    }
}

impl<'de> Deserialize<'de> for PrincipalText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = PrincipalText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"*\" or an object")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(PrincipalText::Word(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Members::deserialize(MapAccessDeserializer::new(map)).map(PrincipalText::Kinds)
            }
        }
        d.deserialize_any(V)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one or a list")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(text.into_deserializer()).map(|one| OneOrMany(vec![one]))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut many = Vec::new();
                while let Some(one) = list.next_element()? {
                    many.push(one);
                }
                Ok(OneOrMany(many))
            }
        }
        d.deserialize_any(V(PhantomData))
    }
}

impl Policy {
    /// Reads a policy. Fails for what is no policy, and for what is one that hydrant cannot enforce;
    /// the text says which part and what to do.
    pub fn parse(text: &str) -> Result<Self, InvalidPolicy> {
        if text.len() > POLICY_BYTES_MAX {
            return invalid(format!("The policy is longer than {POLICY_BYTES_MAX} bytes."));
        }
        let document: Document = serde_json::from_str(text)
            .map_err(|e| InvalidPolicy(format!("The policy is not a policy document: {e}.")))?;
        if let Some(version) = document.version
            && !["2012-10-17", "2008-10-17"].contains(&version.as_str())
        {
            return invalid(format!("Version {version} is neither 2012-10-17 nor 2008-10-17."));
        }
        let mut sids = BTreeSet::new();
        let mut statements = Vec::new();
        for statement in document.statement.0 {
            if let Some(sid) = &statement.sid
                && !sids.insert(sid.clone())
            {
                return invalid(format!("Sid {sid} is there twice."));
            }
            statements.push(Statement::read(statement)?);
        }
        if statements.is_empty() {
            return invalid("The policy has no Statement.");
        }
        Ok(Self { text: text.to_owned(), statements })
    }

    /// Refuses a policy that is about something else than the resource of this ARN, or about actions
    /// that are not among `actions`.
    pub fn check(&self, arn: &str, actions: &[&str]) -> Result<(), InvalidPolicy> {
        for statement in &self.statements {
            if let Some(other) = statement.resources.iter().find(|resource| *resource != arn) {
                return invalid(format!("Resource {other} is not {arn}, which the policy is for."));
            }
            let known = |pattern: &&String| actions.iter().any(|action| matches(pattern, action));
            if let Some(unknown) = statement.actions.iter().find(|pattern| !known(pattern)) {
                return invalid(format!(
                    "Action kinesis:{unknown} cannot be in a policy for {arn}. These can: {}.",
                    actions.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// The policy as it was put.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the policy says to a caller's action, such as `PutRecord`.
    pub fn ask(&self, caller: &Caller<'_>, action: &str) -> Verdict {
        let applies = |statement: &&Statement| statement.applies(caller, action);
        let mut verdict = Verdict::Silent;
        for statement in self.statements.iter().filter(applies) {
            if !statement.allows {
                return Verdict::Denied;
            }
            verdict = Verdict::Allowed;
        }
        verdict
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Policy {}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl Statement {
    fn read(text: StatementText) -> Result<Self, InvalidPolicy> {
        let not = [
            ("NotPrincipal", text.not_principal.is_some()),
            ("NotAction", text.not_action.is_some()),
            ("NotResource", text.not_resource.is_some()),
        ];
        if let Some((name, _)) = not.iter().find(|(_, given)| *given) {
            return invalid(format!("{name} is not supported. Say what it is about instead."));
        }
        let allows = match text.effect.as_str() {
            "Allow" => true,
            "Deny" => false,
            other => return invalid(format!("Effect {other} is neither Allow nor Deny.")),
        };
        let Some(principal) = text.principal else {
            return invalid("A Statement has no Principal.");
        };
        let actions = text.action.map_or_else(Vec::new, |list| list.0);
        let resources = text.resource.map_or_else(Vec::new, |list| list.0);
        if actions.is_empty() || resources.is_empty() {
            return invalid("A Statement has no Action or no Resource.");
        }
        let actions = actions.into_iter().map(|action| match action.split_once(':') {
            Some((service, name)) if service.eq_ignore_ascii_case("kinesis") => Ok(name.to_owned()),
            _ => invalid(format!("Action {action} is not an action of kinesis.")),
        });
        let mut conditions = Vec::new();
        for (operator, keys) in text.condition.map_or_else(Vec::new, |members| members.0) {
            for (key, values) in keys.0 {
                conditions.push(Condition::read(&operator, &key, values.0)?);
            }
        }
        Ok(Self {
            allows,
            principals: principals(principal)?,
            actions: actions.collect::<Result<_, _>>()?,
            resources,
            conditions,
        })
    }

    fn applies(&self, caller: &Caller<'_>, action: &str) -> bool {
        self.principals.iter().any(|principal| principal.is(caller))
            && self.actions.iter().any(|pattern| matches(pattern, action))
            && self.conditions.iter().all(|condition| condition.holds(caller))
    }
}

fn principals(text: PrincipalText) -> Result<Vec<Principal>, InvalidPolicy> {
    let kinds = match text {
        PrincipalText::Word(word) if word == "*" => return Ok(vec![Principal::Everyone]),
        PrincipalText::Word(word) => return invalid(format!("Principal {word} is not one.")),
        PrincipalText::Kinds(kinds) => kinds,
    };
    let mut found = Vec::new();
    for (kind, names) in kinds.0 {
        for name in names.0 {
            found.push(match kind.as_str() {
                "AWS" => Principal::read(&name)?,
                "Service" => Principal::Nobody,
                other => {
                    return invalid(format!("Principals of the kind {other} are not supported."));
                }
            });
        }
    }
    if found.is_empty() { invalid("A Statement's Principal names nobody.") } else { Ok(found) }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

impl Principal {
    fn read(text: &str) -> Result<Self, InvalidPolicy> {
        if text == "*" {
            return Ok(Self::Everyone);
        }
        if is_account(text) {
            return Ok(Self::Account(text.to_owned()));
        }
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        if let ["arn", partition, service @ ("iam" | "sts"), "", account, name] = parts[..]
            && partition.starts_with("aws")
            && is_account(account)
        {
            let account = account.to_owned();
            match (service, name.split_once('/')) {
                ("iam", None) if name == "root" => return Ok(Self::Account(account)),
                ("iam", Some(("user", path))) if !path.is_empty() => {
                    let user = path.rsplit('/').next().unwrap_or(path);
                    return Ok(Self::User(account, user.to_owned()));
                }
                ("iam", Some(("role", _))) | ("sts", Some(("assumed-role", _))) => {
                    return Ok(Self::Nobody);
                }
                _ => {}
            }
        }
        invalid(format!("Principal {text} is not *, an account, or the ARN of a user or a role."))
    }

    fn is(&self, caller: &Caller<'_>) -> bool {
        let from = |account: &str| caller.scope.account.as_str() == account;
        match self {
            Self::Everyone => true,
            Self::Account(account) => from(account),
            Self::User(account, user) => from(account) && caller.access_key == user,
            Self::Nobody => false,
        }
    }
}

impl Condition {
    fn read(operator: &str, key: &str, values: Vec<String>) -> Result<Self, InvalidPolicy> {
        // Every key has a value in every call.
        let (test, negated) = match operator.strip_suffix("IfExists").unwrap_or(operator) {
            "StringEquals" => (Test::Equals, false),
            "StringNotEquals" => (Test::Equals, true),
            "StringEqualsIgnoreCase" => (Test::EqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => (Test::EqualsIgnoreCase, true),
            "StringLike" | "ArnLike" | "ArnEquals" => (Test::Like, false),
            "StringNotLike" | "ArnNotLike" | "ArnNotEquals" => (Test::Like, true),
            other => {
                return invalid(format!(
                    "Condition operator {other} is not supported: String… and Arn… operators are."
                ));
            }
        };
        let keys = [PRINCIPAL_ACCOUNT, PRINCIPAL_ARN, REQUESTED_REGION];
        let Some(key) = keys.into_iter().find(|known| known.eq_ignore_ascii_case(key)) else {
            let keys = keys.join(", ");
            return invalid(format!("Condition key {key} is not supported. These are: {keys}."));
        };
        if values.is_empty() {
            return invalid(format!("The Condition on {key} has no value."));
        }
        if values.iter().any(|value| value.contains("${")) {
            return invalid("Policy variables are not supported in a Condition.");
        }
        Ok(Self { key, test, negated, values })
    }

    fn holds(&self, caller: &Caller<'_>) -> bool {
        let Caller { scope: Scope { account, region }, access_key } = caller;
        let is = |asked: &str| {
            self.values.iter().any(|value| match self.test {
                Test::Equals => value == asked,
                Test::EqualsIgnoreCase => value.eq_ignore_ascii_case(asked),
                Test::Like => like(value.as_bytes(), asked.as_bytes()),
            })
        };
        let found = match self.key {
            PRINCIPAL_ACCOUNT => is(account.as_str()),
            REQUESTED_REGION => is(region.as_str()),
            _ => is(&format!("arn:aws:iam::{account}:user/{access_key}")),
        };
        found != self.negated
    }
}

/// Whether an action is one that a pattern means: letters of either case, `*` and `?`.
fn matches(pattern: &str, action: &str) -> bool {
    like(pattern.to_ascii_lowercase().as_bytes(), action.to_ascii_lowercase().as_bytes())
}

/// Whether a text has a pattern with `*` for any characters and `?` for one. In time of the product of
/// their lengths.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b) if *b == b'?' || *b == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests;
