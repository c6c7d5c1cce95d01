//! Replies of the query protocol: XML, or the same in JSON for those who ask for it.

use serde_json::{Value, json};

use crate::api::ApiError;

/// The reply of an operation that was run.
pub(super) fn result(operation: &str, value: &Value, namespace: &str, id: &str) -> String {
    let mut out = format!("<{operation}Response xmlns=\"{}\">\n", escaped(namespace));
    if !value.is_null() {
        out.push_str(&format!("  <{operation}Result>"));
        write(&mut out, value);
        out.push_str(&format!("</{operation}Result>\n"));
    }
    out.push_str(&format!(
        "  <ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata>\n\
         </{operation}Response>\n"
    ));
    out
}

/// The same in JSON.
pub(super) fn result_as_json(operation: &str, value: Value, id: &str) -> Value {
    json!({ format!("{operation}Response"): {
        format!("{operation}Result"): value,
        "ResponseMetadata": { "RequestId": id },
    } })
}

/// The reply that refuses.
pub(super) fn error(error: &ApiError, namespace: &str, id: &str) -> String {
    let (code, fault) = code(error);
    format!(
        "<ErrorResponse xmlns=\"{}\">\n  <Error>\n    <Type>{fault}</Type>\n    <Code>{code}</Code>\n    \
         <Message>{}</Message>\n  </Error>\n  <RequestId>{id}</RequestId>\n</ErrorResponse>\n",
        escaped(namespace),
        escaped(text(error))
    )
}

/// The same in JSON.
pub(super) fn error_as_json(error: &ApiError, id: &str) -> Value {
    let (code, fault) = code(error);
    json!({
        "Error": { "Code": code, "Message": text(error), "Type": fault },
        "RequestId": id,
    })
}

/// What a caller may read: the text of an error of ours stays in the log.
fn text(error: &ApiError) -> &str {
    if error.status < 500 {
        return &error.message;
    }
    "The request processing has failed because of an unknown error, exception or failure."
}

/// The code of an error in this protocol, and whose fault it is. See "Common errors" of the STS and
/// CloudWatch API references.
pub(super) fn code(error: &ApiError) -> (&'static str, &'static str) {
    let code = match error.code {
        "IncompleteSignatureException" => "IncompleteSignature",
        "InvalidParameterCombinationException" => "InvalidParameterCombination",
        "InvalidParameterValueException" => "InvalidParameterValue",
        "InvalidSignatureException" => "SignatureDoesNotMatch",
        "MissingAuthenticationTokenException" => "MissingAuthenticationToken",
        "MissingRequiredParameterException" => "MissingParameter",
        "RequestEntityTooLargeException" => "RequestEntityTooLarge",
        "SerializationException" => "MalformedInput",
        "UnknownOperationException" => "InvalidAction",
        "UnrecognizedClientException" => "InvalidClientTokenId",
        other => other,
    };
    (code, if error.status < 500 { "Sender" } else { "Receiver" })
}

/// The status of an error in this protocol.
pub(super) fn status(error: &ApiError) -> u16 {
    match code(error).0 {
        "IncompleteSignature"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "SignatureDoesNotMatch" => 403,
        _ => error.status,
    }
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::String(text) => out.push_str(&escaped(text)),
        Value::Array(list) => {
            for one in list {
                out.push_str("<member>");
                write(out, one);
                out.push_str("</member>");
            }
        }
        Value::Object(members) => {
            for (name, one) in members {
                out.push_str(&format!("<{name}>"));
                write(out, one);
                out.push_str(&format!("</{name}>"));
            }
        }
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            // XML 1.0 has no place for them.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
