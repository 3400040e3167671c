//! What needs no server: names, the environment, checksums, the disk's errors.

use super::super::{hash::Hash, *};
use std::{collections::BTreeMap, fs};

#[test]
fn a_full_disk_is_said_to_be_full() {
    let path = Path::new("cache/blobs/1.incomplete");
    let told = HubError::disk(path)(io::ErrorKind::StorageFull.into()).to_string();
    assert!(told.starts_with("cache/blobs/1.incomplete: the disk is full"), "{told}");
    let told = HubError::disk(path)(io::ErrorKind::PermissionDenied.into()).to_string();
    assert!(told.contains("permission denied") && told.contains("HF_HOME"), "{told}");
}

#[test]
fn names() {
    for (text, name, revision) in [
        ("hf:org/name", "org/name", "main"),
        ("hf:gpt2", "gpt2", "main"),
        ("hf:org/name-1.5_b@refs/pr/1", "org/name-1.5_b", "refs/pr/1"),
    ] {
        let model: Model = text.parse().unwrap();
        assert_eq!((model.name(), model.revision()), (name, revision));
        assert_eq!(format!("hf:{model}").parse::<Model>().unwrap(), model);
    }
    let bad =
        ["org/name", "hf:", "hf:/", "hf:a/b/c", "hf:../name", "hf:org/..", "hf:org/na me", "hf:org/a--b", "hf:org/n@"];
    for text in
        bad.into_iter().chain(["hf:org/n@../../x", "hf:org/n@a//b", "hf:org/n?x", "hf:org/n@a%2e", "hf:org/n@/a"])
    {
        assert!(matches!(text.parse::<Model>(), Err(HubError::Name(_))), "{text}");
    }
    // What is no name on the hub is a path, and not looked at.
    assert_eq!(folder("no/such/folder", &mut |_| {}).unwrap(), Path::new("no/such/folder"));
}

#[test]
fn the_environment_is_that_of_other_clients() {
    let home = tempfile::tempdir().unwrap();
    let read = |variables: &[(&str, &str)]| {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Config::read(|name| variables.get(name).map(Into::into), Some(home.path().into()))
    };
    let config = read(&[]).unwrap();
    assert_eq!(config.cache, home.path().join(".cache/huggingface/hub"));
    assert_eq!((config.endpoint.as_str(), config.token, config.offline), ("https://huggingface.co", None, false));
    fs::write(home.path().join("token"), "hf_file\n").unwrap();
    let at = home.path().to_str().unwrap();
    let config = read(&[("HF_HOME", at), ("HF_ENDPOINT", "http://mirror/"), ("HF_HUB_OFFLINE", "1")]).unwrap();
    assert_eq!(config.cache, home.path().join("hub"));
    assert_eq!((config.endpoint.as_str(), config.offline), ("http://mirror", true));
    assert_eq!(config.token.as_deref(), Some("hf_file"));
    let config = read(&[("HF_HOME", at), ("HF_HUB_CACHE", "/models"), ("HF_TOKEN", " hf_x "), ("HF_HUB_OFFLINE", "0")]);
    let config = config.unwrap();
    assert_eq!((config.cache.as_path(), config.token.as_deref()), (Path::new("/models"), Some("hf_x")));
    assert!(!config.offline);
    for (name, value) in [("HF_TOKEN", "two words"), ("HF_ENDPOINT", "huggingface.co")] {
        assert!(matches!(read(&[(name, value)]), Err(HubError::Setting { name: told, .. }) if told == name));
    }
    assert!(matches!(Config::read(|_| None, None), Err(HubError::Setting { name: "HF_HOME", .. })));
}

#[test]
fn checksums_are_those_of_git_and_of_large_files() {
    let of = |kind: &str, pieces: &[&str]| {
        let mut hash = Hash::new(kind, pieces.concat().len() as u64);
        pieces.iter().for_each(|piece| hash.update(piece.as_bytes()));
        hash.finish()
    };
    // git hash-object, and sha256sum.
    assert_eq!(of(&"0".repeat(40), &["hel", "lo\n"]), "ce013625030ba8dba906f756967f9e9ca394464a");
    let large = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    assert_eq!(of(&"0".repeat(64), &["hel", "lo\n"]), large);
}
