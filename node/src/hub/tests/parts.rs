//! What needs no server: names, the environment, checksums, the disk's errors.

use super::super::{hash::Sha1, *};
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
fn sha_1_is_that_of_the_standard() {
    let of = |text: &str, piece: usize| {
        let mut hash = Sha1::new();
        text.as_bytes().chunks(piece).for_each(|bytes| hash.update(bytes));
        hash.finish().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let long = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    for piece in [1, 55, 64, 1000] {
        assert_eq!(of("", piece), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(of("abc", piece), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(of(long, piece), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        assert_eq!(of(&"a".repeat(1_000_000), piece), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    }
}
