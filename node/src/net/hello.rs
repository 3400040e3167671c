//! Hellos: what two nodes tell each other first, and what is said when they don't fit.

use heterotune_protocol::{
    charter::{Charter, CharterError},
    limits,
    message::{Context, Hello},
};
use serde_json::Value;

/// Addresses in a hello.
pub(super) const ADDRESSES_MAX: usize = 32;

/// The charter as hellos carry it.
pub(super) fn charter_bytes(charter: &Charter) -> Result<Vec<u8>, CharterError> {
    let bytes = charter.encode()?;
    Ok(if bytes.len() <= limits::HELLO_CHARTER_BYTES_MAX { bytes } else { Vec::new() })
}

/// Why a peer with this hello is not in our network, in words; `None` if it is.
pub(super) fn mismatch(ours: &Context, hello: &Hello) -> Option<String> {
    if hello.version != limits::PROTOCOL_VERSION {
        return Some(format!(
            "it speaks version {} of the protocol and this node version {}; update the older of the two",
            hello.version,
            limits::PROTOCOL_VERSION
        ));
    }
    if hello.network == ours.network {
        return None;
    }
    if hello.charter.is_empty() {
        return Some(format!("it is in the network {}; give both nodes the same charter file", hello.network));
    }
    Some(match Charter::decode(&hello.charter) {
        Ok(theirs) => format!(
            "its charter differs in {}; give both nodes the same charter file",
            differences(&ours.charter, &theirs).join(", ")
        ),
        Err(error) => format!("its charter is not valid ({error}); give both nodes the same charter file"),
    })
}

/// The settings in which two charters differ, each as "name (here / there)".
pub fn differences(ours: &Charter, theirs: &Charter) -> Vec<String> {
    let mut found = Vec::new();
    if let (Ok(ours), Ok(theirs)) = (serde_json::to_value(ours), serde_json::to_value(theirs)) {
        compare("", &ours, &theirs, &mut found);
    }
    found
}

fn compare(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in ours {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, value, theirs.get(key).unwrap_or(&Value::Null), found);
            }
        }
        _ if ours == theirs => {}
        (Value::Array(_), _) => found.push(path.to_string()),
        _ => found.push(format!("{path} (here {ours}, there {theirs})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::{Digest, Identity};
    use heterotune_protocol::charter::{Anchors, Task};

    #[test]
    fn what_differs_is_named() {
        let founders = vec![Identity::from_seed(1, "a").id()];
        let labels = vec!["0".into(), "1".into()];
        let ours = Charter::new(
            "digits",
            founders,
            Task::ImageClassification { labels },
            Anchors { digest: Digest::ZERO, count: 128 },
        );
        let mut theirs = ours.clone();
        assert!(differences(&ours, &theirs).is_empty());
        theirs.adapter.rank = 8;
        theirs.name = "letters".into();
        assert_eq!(
            differences(&ours, &theirs),
            ["adapter.rank (here 16, there 8)", "name (here \"digits\", there \"letters\")"]
        );
        let hello = |charter: &Charter| Hello {
            version: limits::PROTOCOL_VERSION,
            network: charter.id().unwrap(),
            charter: charter_bytes(charter).unwrap(),
            peers: vec![],
        };
        let context = Context::new(ours.clone()).unwrap();
        assert_eq!(mismatch(&context, &hello(&ours)), None);
        assert!(mismatch(&context, &hello(&theirs)).unwrap().contains("adapter.rank (here 16, there 8)"));
        assert!(mismatch(&context, &Hello { version: 9, ..hello(&ours) }).unwrap().contains("version 9"));
    }
}
