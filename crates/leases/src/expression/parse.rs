//! Expressions read by recursive descent, in depth and number of operators bounded.

use super::condition::{Comparison, Condition, Function, Operand};
use super::lex::{Kind, Token, Tokens};
use super::path::{Path, Projection, Step};
use super::placeholders::Placeholders;
use super::reserved::is_reserved;
use super::update::{Action, SetValue, Update};
use crate::error::Error;
use crate::value::Value;

/// Deepest nesting of parentheses, NOT and functions.
const DEPTH_MAX: usize = 64;
/// Most operators and functions in one expression (AWS: 300).
const OPERATORS_MAX: usize = 300;
/// Most operands of an IN (AWS: 100).
const IN_OPERANDS_MAX: usize = 100;
/// Most steps of a document path: items are no deeper.
const STEPS_MAX: usize = 32;
const CONDITION_FUNCTIONS: [&str; 6] = [
    "attribute_exists",
    "attribute_not_exists",
    "attribute_type",
    "begins_with",
    "contains",
    "size",
];
const UPDATE_FUNCTIONS: [&str; 2] = ["if_not_exists", "list_append"];
const KINDS: [&str; 10] = ["B", "BOOL", "BS", "L", "M", "N", "NS", "NULL", "S", "SS"];

struct Parser<'a, 'p> {
    tokens: Tokens<'a>,
    placeholders: &'p mut Placeholders,
    depth: usize,
    operators: usize,
}

/// Reads a condition that came as `parameter`.
pub(crate) fn condition(
    parameter: &'static str,
    text: &str,
    placeholders: &mut Placeholders,
) -> Result<Condition, Error> {
    let mut parser = Parser::new(parameter, text, placeholders)?;
    let condition = parser.any()?;
    parser.end()?;
    Ok(condition)
}

/// Reads an `UpdateExpression`.
pub(crate) fn update(text: &str, placeholders: &mut Placeholders) -> Result<Update, Error> {
    let mut parser = Parser::new("UpdateExpression", text, placeholders)?;
    let mut update = Update::default();
    let mut seen = Vec::new();
    while parser.tokens.peek().is_some() {
        parser.section(&mut update, &mut seen)?;
    }
    update.check_overlaps().map_err(|text| parser.tokens.refuse(&text))?;
    Ok(update)
}

/// Reads a `ProjectionExpression`.
pub(crate) fn projection(text: &str, placeholders: &mut Placeholders) -> Result<Projection, Error> {
    let mut parser = Parser::new("ProjectionExpression", text, placeholders)?;
    let mut paths: Vec<Path> = Vec::new();
    loop {
        let path = parser.path()?;
        if let Some(other) = paths.iter().find(|other| other.overlaps(&path)) {
            return Err(parser.tokens.refuse(&format!(
                "Two document paths overlap with each other; must remove or rewrite one of these \
                 paths; path one: {other}, path two: {path}"
            )));
        }
        paths.push(path);
        if !parser.tokens.take(",") {
            break;
        }
    }
    parser.end()?;
    Ok(Projection(paths))
}

impl<'a, 'p> Parser<'a, 'p> {
    fn new(
        parameter: &'static str,
        text: &'a str,
        placeholders: &'p mut Placeholders,
    ) -> Result<Self, Error> {
        let tokens = Tokens::of(parameter, text)?;
        Ok(Self { tokens, placeholders, depth: 0, operators: 0 })
    }

    fn end(&self) -> Result<(), Error> {
        if self.tokens.peek().is_none() { Ok(()) } else { Err(self.tokens.syntax()) }
    }

    fn operator(&mut self) -> Result<(), Error> {
        self.operators += 1;
        if self.operators > OPERATORS_MAX {
            return Err(self.tokens.refuse(&format!(
                "The expression contains too many operators; operator count: {}",
                self.operators
            )));
        }
        Ok(())
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.tokens.refuse("The expression is nested too deeply"));
        }
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn any(&mut self) -> Result<Condition, Error> {
        let mut any = vec![self.all()?];
        while self.tokens.take("OR") {
            self.operator()?;
            any.push(self.all()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Condition::Any(any) })
    }

    fn all(&mut self) -> Result<Condition, Error> {
        let mut all = vec![self.one()?];
        while self.tokens.take("AND") {
            self.operator()?;
            all.push(self.one()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::All(all) })
    }

    fn one(&mut self) -> Result<Condition, Error> {
        if self.tokens.take("NOT") {
            self.operator()?;
            let inner = self.deeper(Self::one)?;
            return Ok(Condition::Not(Box::new(inner)));
        }
        if self.tokens.take("(") {
            let inner = self.deeper(Self::any)?;
            self.tokens.expect(")")?;
            return Ok(inner);
        }
        if let Some(name) = self.function_ahead()
            && name != "size"
        {
            return self.function(name);
        }
        let first = self.operand()?;
        self.operator()?;
        if self.tokens.take("BETWEEN") {
            let low = self.operand()?;
            self.tokens.expect("AND")?;
            let high = self.operand()?;
            for operand in [&low, &high] {
                self.check_ordered("BETWEEN", operand)?;
            }
            return Ok(Condition::Between(first, low, high));
        }
        if self.tokens.take("IN") {
            self.tokens.expect("(")?;
            let mut list = vec![self.operand()?];
            while self.tokens.take(",") {
                list.push(self.operand()?);
            }
            self.tokens.expect(")")?;
            if list.len() > IN_OPERANDS_MAX {
                return Err(self.tokens.refuse(&format!(
                    "The IN operator is provided with too many operands; number of operands: {}",
                    list.len()
                )));
            }
            return Ok(Condition::In(first, list));
        }
        let how = self.comparison()?;
        let second = self.operand()?;
        if how.is_ordering() {
            for operand in [&first, &second] {
                self.check_ordered(how.symbol(), operand)?;
            }
        }
        Ok(Condition::Compare(how, first, second))
    }

    fn comparison(&mut self) -> Result<Comparison, Error> {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        let all = [Equal, NotEqual, LessOrEqual, GreaterOrEqual, Less, Greater];
        let found = all.into_iter().find(|one| self.tokens.take(one.symbol()));
        found.ok_or_else(|| self.tokens.syntax())
    }

    /// Values that have no order cannot be put in one.
    fn check_ordered(&self, operator: &str, operand: &Operand) -> Result<(), Error> {
        match operand {
            Operand::Value(Value::Text(_) | Value::Number(_) | Value::Binary(_)) => Ok(()),
            Operand::Value(other) => Err(self.wrong_type(operator, other)),
            _ => Ok(()),
        }
    }

    fn wrong_type(&self, operator: &str, value: &Value) -> Error {
        self.tokens.refuse(&format!(
            "Incorrect operand type for operator or function; operator or function: {operator}, \
             operand type: {}",
            value.kind()
        ))
    }

    /// The function that comes next, if one does: a word and a parenthesis.
    fn function_ahead(&self) -> Option<&'a str> {
        let word = self.tokens.peek().filter(|token| token.kind == Kind::Word)?;
        self.tokens.peek_second().filter(|token| token.text == "(")?;
        Some(word.text)
    }

    fn function(&mut self, name: &'a str) -> Result<Condition, Error> {
        if UPDATE_FUNCTIONS.contains(&name) {
            return Err(self.tokens.refuse(&format!(
                "The function is not allowed in a condition expression; function: {name}"
            )));
        }
        if !CONDITION_FUNCTIONS.contains(&name) {
            return Err(self.tokens.refuse(&format!("Invalid function name; function: {name}")));
        }
        self.operator()?;
        let mut operands = self.operands()?;
        let wanted = if name.starts_with("attribute_") && name != "attribute_type" { 1 } else { 2 };
        self.check_count(name, operands.len(), wanted)?;
        let second = if wanted == 2 { operands.pop() } else { None };
        let first = operands.pop().ok_or_else(|| self.tokens.syntax())?;
        let function = match (name, first, second) {
            ("attribute_exists", first, _) => Function::Exists(self.path_of(name, first)?),
            ("attribute_not_exists", first, _) => Function::NotExists(self.path_of(name, first)?),
            ("attribute_type", first, Some(Operand::Value(kind))) => {
                let path = self.path_of(name, first)?;
                let Value::Text(kind) = kind else { return Err(self.wrong_type(name, &kind)) };
                if !KINDS.contains(&kind.as_str()) {
                    return Err(self.tokens.refuse(&format!(
                        "Invalid attribute type name found; type: {kind}, valid types: {{{}}}",
                        KINDS.join(",")
                    )));
                }
                Function::Type(path, kind)
            }
            ("begins_with", first, Some(second)) => {
                for operand in [&first, &second] {
                    if let Operand::Value(value) = operand
                        && !matches!(value, Value::Text(_) | Value::Binary(_))
                    {
                        return Err(self.wrong_type(name, value));
                    }
                }
                Function::BeginsWith(first, second)
            }
            ("contains", first, Some(second)) => Function::Contains(first, second),
            _ => return Err(self.tokens.syntax()),
        };
        Ok(Condition::Function(function))
    }

    /// The operands of a function, with its name still to be taken.
    fn operands(&mut self) -> Result<Vec<Operand>, Error> {
        self.tokens.next();
        self.tokens.expect("(")?;
        let mut operands = vec![self.deeper(Self::operand)?];
        while self.tokens.take(",") {
            operands.push(self.deeper(Self::operand)?);
        }
        self.tokens.expect(")")?;
        Ok(operands)
    }

    fn check_count(&self, name: &str, count: usize, wanted: usize) -> Result<(), Error> {
        if count == wanted {
            return Ok(());
        }
        Err(self.tokens.refuse(&format!(
            "Incorrect number of operands for operator or function; operator or function: {name}, \
             number of operands: {count}"
        )))
    }

    fn path_of(&self, name: &str, operand: Operand) -> Result<Path, Error> {
        match operand {
            Operand::Path(path) => Ok(path),
            _ => Err(self.tokens.refuse(&format!(
                "Operator or function requires a document path; operator or function: {name}"
            ))),
        }
    }

    fn operand(&mut self) -> Result<Operand, Error> {
        match self.function_ahead() {
            Some("size") => {
                self.operator()?;
                let mut operands = self.operands()?;
                self.check_count("size", operands.len(), 1)?;
                let operand = operands.pop().ok_or_else(|| self.tokens.syntax())?;
                return Ok(Operand::Size(self.path_of("size", operand)?));
            }
            Some(name) if CONDITION_FUNCTIONS.contains(&name) => {
                return Err(self.tokens.refuse(&format!(
                    "The function is not allowed to be used this way in an expression; function: \
                     {name}"
                )));
            }
            Some(name) => {
                return Err(self
                    .tokens
                    .refuse(&format!("Invalid function name; function: {name}")));
            }
            None => {}
        }
        match self.tokens.peek() {
            Some(Token { kind: Kind::Value, text, .. }) => {
                self.tokens.next();
                Ok(Operand::Value(self.value(text)?))
            }
            _ => Ok(Operand::Path(self.path()?)),
        }
    }

    fn value(&mut self, key: &str) -> Result<Value, Error> {
        self.placeholders.value(key).ok_or_else(|| {
            self.tokens.refuse(&format!(
                "An expression attribute value used in expression is not defined; attribute value: \
                 {key}"
            ))
        })
    }

    fn path(&mut self) -> Result<Path, Error> {
        let attribute = self.name()?;
        let mut steps = Vec::new();
        loop {
            if self.tokens.take(".") {
                steps.push(Step::Name(self.name()?));
            } else if self.tokens.take("[") {
                let index = self.tokens.peek().filter(|token| token.kind == Kind::Index);
                let index = index.and_then(|token| token.text.parse::<u32>().ok());
                let index = index.ok_or_else(|| self.tokens.syntax())?;
                self.tokens.next();
                self.tokens.expect("]")?;
                steps.push(Step::Index(index as usize));
            } else {
                return Ok(Path { attribute, steps });
            }
            if steps.len() > STEPS_MAX {
                return Err(self.tokens.refuse("The document path has too many nesting levels"));
            }
        }
    }

    fn name(&mut self) -> Result<String, Error> {
        let token = self.tokens.peek().ok_or_else(|| self.tokens.syntax())?;
        match token.kind {
            Kind::Word if is_reserved(token.text) => Err(self.tokens.refuse(&format!(
                "Attribute name is a reserved keyword; reserved keyword: {}",
                token.text
            ))),
            Kind::Word => {
                self.tokens.next();
                Ok(token.text.to_owned())
            }
            Kind::Name => {
                self.tokens.next();
                self.placeholders.name(token.text).ok_or_else(|| {
                    self.tokens.refuse(&format!(
                        "An expression attribute name used in the document path is not defined; \
                         attribute name: {}",
                        token.text
                    ))
                })
            }
            _ => Err(self.tokens.syntax()),
        }
    }

    fn section(&mut self, update: &mut Update, seen: &mut Vec<&str>) -> Result<(), Error> {
        let names = ["SET", "REMOVE", "ADD", "DELETE"];
        let name = names.into_iter().find(|name| self.tokens.take(name));
        let name = name.ok_or_else(|| self.tokens.syntax())?;
        if seen.contains(&name) {
            return Err(self.tokens.refuse(&format!(
                "The \"{name}\" section can only be used once in an update expression;"
            )));
        }
        seen.push(name);
        loop {
            self.operator()?;
            let path = self.path()?;
            let action = match name {
                "SET" => {
                    self.tokens.expect("=")?;
                    Action::Set(self.sum()?)
                }
                "REMOVE" => Action::Remove,
                _ => {
                    let token = self.tokens.peek().filter(|token| token.kind == Kind::Value);
                    let token = token.ok_or_else(|| self.tokens.syntax())?;
                    self.tokens.next();
                    let value = self.value(token.text)?;
                    self.member_action(name, value)?
                }
            };
            update.0.push((path, action));
            if !self.tokens.take(",") {
                return Ok(());
            }
        }
    }

    fn member_action(&self, name: &str, value: Value) -> Result<Action, Error> {
        let is_set = matches!(value, Value::Texts(_) | Value::Numbers(_) | Value::Binaries(_));
        let is_number = matches!(value, Value::Number(_));
        match name {
            "ADD" if is_set || is_number => Ok(Action::Add(value)),
            "DELETE" if is_set => Ok(Action::Delete(value)),
            _ => Err(self.tokens.refuse(&format!(
                "Incorrect operand type for operator or function; operator: {name}, operand type: \
                 {}",
                value.kind()
            ))),
        }
    }

    fn sum(&mut self) -> Result<SetValue, Error> {
        let first = self.term()?;
        for symbol in ["+", "-"] {
            if self.tokens.take(symbol) {
                self.operator()?;
                let second = self.term()?;
                for term in [&first, &second] {
                    if let SetValue::Value(value) = term
                        && !matches!(value, Value::Number(_))
                    {
                        return Err(self.wrong_type(symbol, value));
                    }
                }
                let (first, second) = (Box::new(first), Box::new(second));
                return Ok(match symbol {
                    "+" => SetValue::Plus(first, second),
                    _ => SetValue::Minus(first, second),
                });
            }
        }
        Ok(first)
    }

    fn term(&mut self) -> Result<SetValue, Error> {
        if self.tokens.take("(") {
            let inner = self.deeper(Self::sum)?;
            self.tokens.expect(")")?;
            return Ok(inner);
        }
        let Some(name) = self.function_ahead() else {
            return match self.tokens.peek() {
                Some(Token { kind: Kind::Value, text, .. }) => {
                    self.tokens.next();
                    Ok(SetValue::Value(self.value(text)?))
                }
                _ => Ok(SetValue::Path(self.path()?)),
            };
        };
        if CONDITION_FUNCTIONS.contains(&name) {
            return Err(self.tokens.refuse(&format!(
                "The function is not allowed in an update expression; function: {name}"
            )));
        }
        if !UPDATE_FUNCTIONS.contains(&name) {
            return Err(self.tokens.refuse(&format!("Invalid function name; function: {name}")));
        }
        self.operator()?;
        self.tokens.next();
        self.tokens.expect("(")?;
        let first = self.deeper(Self::term)?;
        self.tokens.expect(",")?;
        let second = self.deeper(Self::term)?;
        self.tokens.expect(")")?;
        match (name, first) {
            ("if_not_exists", SetValue::Path(path)) => {
                Ok(SetValue::IfNotExists(path, Box::new(second)))
            }
            ("if_not_exists", _) => Err(self.tokens.refuse(
                "Operator or function requires a document path; operator or function: if_not_exists",
            )),
            (_, first) => Ok(SetValue::ListAppend(Box::new(first), Box::new(second))),
        }
    }
}
