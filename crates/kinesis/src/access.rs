//! Who may do what: resource policies, asked for every call on a stream or consumer that has one, and
//! for every call from another account.
//!
//! An account's own callers may do everything that a policy does not deny them; those of another only
//! what one allows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hydrant_core::arn::Arn;
use hydrant_core::catalog::{ConsumerStatus, Stream, StreamCatalog};
use hydrant_core::names::Scope;
use hydrant_core::policy::{Caller, Policy, Verdict};
use hydrant_wire::Call;
use hydrant_wire::shape::Text;

use crate::Kinesis;
use crate::consumers::ConsumerKey;
use crate::error::Error;
use crate::streams::{Named, StreamKey};
use crate::validate::{CONSUMER_ARN, Checks, RESOURCE_ARN};

/// What a stream's policy can be about (AWS: "Sharing access using resource-based policies").
const STREAM_ACTIONS: [&str; 7] = [
    "DescribeStream",
    "DescribeStreamSummary",
    "GetRecords",
    "GetShardIterator",
    "ListShards",
    "PutRecord",
    "PutRecords",
];
/// What a consumer's can.
const CONSUMER_ACTIONS: [&str; 2] = ["DescribeStreamConsumer", "SubscribeToShard"];

/// Whether anything has a policy since the process started: while nothing has, an account's own calls
/// need not be looked at.
#[derive(Default)]
pub(crate) struct Policies {
    any: AtomicBool,
}

impl Policies {
    /// As the rows have it.
    pub(crate) fn of(catalog: &StreamCatalog) -> Self {
        let has = |stream: &Stream| {
            stream.settings.policy.is_some() || stream.consumers.iter().any(|c| c.policy.is_some())
        };
        Self { any: (!catalog.which(has).is_empty()).into() }
    }

    fn exist(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }
}

/// What `ResourceARN` names.
pub(crate) enum Resource {
    Stream(StreamKey),
    Consumer(ConsumerKey),
}

impl Resource {
    /// The stream that it is, or that it consumes.
    pub(crate) fn stream(&self) -> &StreamKey {
        match self {
            Self::Stream(id) => id,
            Self::Consumer(key) => &key.stream,
        }
    }

    fn actions(&self) -> &'static [&'static str] {
        match self {
            Self::Stream(_) => &STREAM_ACTIONS,
            Self::Consumer(_) => &CONSUMER_ACTIONS,
        }
    }
}

/// Checks the members that name a resource.
pub(crate) fn check(checks: &mut Checks, arn: Option<&Text<'_>>, stream_id: Option<&Text<'_>>) {
    checks.required("resourceARN", arn);
    checks.text("resourceARN", arn, &RESOURCE_ARN);
    checks.stream_if_given(&Named { name: None, arn: None, id: stream_id });
}

impl Kinesis {
    /// What a request names that passed [`check`], if the caller may do this to it. Whether it is
    /// there is not known yet.
    pub(crate) fn resource(
        &self,
        call: &Call,
        arn: &Option<Text<'_>>,
        stream_id: &Option<Text<'_>>,
    ) -> Result<Resource, Error> {
        let text = arn.as_deref().unwrap_or_default();
        if text.contains("/consumer/") && CONSUMER_ARN.accepts(text) {
            let consumer = self.consumer_key(call, text)?;
            let named = Named::by(&None, &None, stream_id);
            if named.is_given() && self.resolve(call, &named)? != consumer.stream {
                return Err(Error::InvalidArgument(
                    "The ResourceARN is not of a consumer of the stream that StreamId names."
                        .to_owned(),
                ));
            }
            self.allow_call(call, Some(&consumer.stream))?;
            return Ok(Resource::Consumer(consumer));
        }
        let parsed: Option<Arn> = text.parse().ok();
        if parsed.is_some_and(|arn| arn.name_of("stream").is_none()) {
            // A queue or a channel: there are none.
            return Err(Error::ResourceNotFound(format!("Resource {text} not found.")));
        }
        self.named(call, &Named::by(&None, arn, stream_id)).map(Resource::Stream)
    }

    /// Refuses what the stream's policy denies the caller, and what it does not allow a caller of
    /// another account. `shown` is how the refusal names the stream, if not by its ARN.
    pub(crate) fn allow_stream(
        &self,
        call: &Call,
        id: &StreamKey,
        shown: Option<&str>,
    ) -> Result<(), Error> {
        if id.scope.account == call.scope().account && !self.policies.exist() {
            return Ok(());
        }
        let held = self.catalog.get(&id.scope, &id.name);
        let policy = held.as_ref().and_then(|held| held.stream.settings.policy.as_deref());
        let arn = || Arn::new("kinesis", &id.scope, format!("stream/{}", id.name)).to_string();
        allow(call, &id.scope, policy, &STREAM_ACTIONS, || shown.map_or_else(arn, str::to_owned))
    }

    /// The same for a consumer.
    pub(crate) fn allow_consumer(
        &self,
        call: &Call,
        key: &ConsumerKey,
        shown: Option<&str>,
    ) -> Result<(), Error> {
        let scope = &key.stream.scope;
        if scope.account == call.scope().account && !self.policies.exist() {
            return Ok(());
        }
        let held = self.catalog.get(scope, &key.stream.name);
        let consumer = held.as_ref().and_then(|h| key.look_up(&h.stream, self.clock.now()));
        let policy = consumer.and_then(|(consumer, _)| consumer.policy.as_deref());
        let arn = || match (&held, consumer) {
            (Some(held), Some((consumer, _))) => consumer.arn(&held.stream).to_string(),
            _ => key.words(),
        };
        allow(call, scope, policy, &CONSUMER_ACTIONS, || shown.map_or_else(arn, str::to_owned))
    }

    /// The policy of a resource, if it has one.
    pub(crate) fn policy(&self, resource: &Resource) -> Result<Option<Arc<Policy>>, Error> {
        Ok(match resource {
            Resource::Stream(id) => self.find(id)?.held.stream.settings.policy.clone(),
            Resource::Consumer(key) => self.consumer(key)?.consumer.policy,
        })
    }

    /// Gives a resource a policy, or takes it away. The resource has to be active.
    pub(crate) async fn set_policy(
        &self,
        resource: &Resource,
        policy: Option<Arc<Policy>>,
    ) -> Result<(), Error> {
        if policy.is_some() {
            // Before the row says it: a call that comes upon the policy has to ask it.
            self.policies.any.store(true, Ordering::Release);
        }
        match resource {
            Resource::Stream(id) => {
                let decide = || {
                    let held = self.active(id)?;
                    let mut next = Stream::clone(&held.stream);
                    next.settings.policy.clone_from(&policy);
                    Ok((next != *held.stream).then_some((next, held.version)))
                };
                self.change(decide).await
            }
            Resource::Consumer(key) => {
                let set = |consumer: &mut hydrant_core::catalog::Consumer, status| {
                    if status != ConsumerStatus::Active {
                        return Err(Error::ResourceInUse(format!(
                            "{} is not in ACTIVE status.",
                            key.words()
                        )));
                    }
                    consumer.policy.clone_from(&policy);
                    Ok(())
                };
                self.change_consumer(key, set).await
            }
        }
    }

    /// Reads a policy for a resource of this ARN.
    pub(crate) fn read_policy(resource: &Resource, arn: &str, text: &str) -> Result<Policy, Error> {
        let policy = Policy::parse(text);
        let checked = policy.and_then(|policy| {
            policy.check(arn, resource.actions())?;
            Ok(policy)
        });
        checked.map_err(|e| Error::InvalidArgument(e.to_string()))
    }
}

/// Asks a policy about what it can be about: `kinesis:*` is no more than `actions`.
fn allow(
    call: &Call,
    scope: &Scope,
    policy: Option<&Policy>,
    actions: &[&str],
    shown: impl Fn() -> String,
) -> Result<(), Error> {
    let caller = Caller { scope: call.scope(), access_key: call.principal.access_key() };
    let operation = &call.operation;
    let policy = policy.filter(|_| actions.contains(&operation.as_str()));
    let why = match policy.map_or(Verdict::Silent, |policy| policy.ask(&caller, operation)) {
        Verdict::Allowed => return Ok(()),
        Verdict::Silent if scope.account == caller.scope.account => return Ok(()),
        Verdict::Silent => {
            format!("because no resource-based policy allows the kinesis:{operation} action")
        }
        Verdict::Denied => "with an explicit deny in a resource-based policy".to_owned(),
    };
    Err(Error::AccessDenied(format!(
        "User: arn:aws:iam::{}:root is not authorized to perform: kinesis:{operation} on resource: {} \
         {why}",
        caller.scope.account,
        shown()
    )))
}
