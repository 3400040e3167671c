//! Against a server on this machine that answers as the hub does.

mod parts;
mod server;

use super::*;
use crate::backbone;
use server::{Behaviour, Server};
use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

type Files = BTreeMap<String, Vec<u8>>;

const NAME: &str = "org/tiny";

/// All files under a folder, by their names in it.
fn read(folder: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_string();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// A made-up model that can be loaded, with some files that are fetched and some that are not.
fn tiny() -> Files {
    let (folder, ..) = backbone::tests::tiny();
    let mut files = read(folder.path());
    files.insert("1_Pooling/config.json".into(), b"{}".to_vec());
    files.insert("README.md".into(), b"words".to_vec());
    files.insert("pytorch_model.bin".into(), vec![7; 1000]);
    files
}

/// The files of [`tiny`] that a backbone needs.
fn wanted(mut files: Files) -> Files {
    files.retain(|name, _| name != "README.md" && name != "pytorch_model.bin");
    files
}

struct Desk {
    server: Server,
    config: Config,
    model: Model,
    _cache: tempfile::TempDir,
}

impl Desk {
    fn new(files: Files, behaviour: Behaviour) -> Self {
        let server = Server::start(NAME, files, behaviour);
        let cache = tempfile::tempdir().unwrap();
        let config = Config {
            cache: cache.path().join("hub"),
            endpoint: server.address(),
            token: None,
            offline: false,
            pause: Duration::ZERO,
        };
        Self { server, config, model: format!("hf:{NAME}").parse().unwrap(), _cache: cache }
    }

    fn fetch(&self) -> Result<PathBuf, HubError> {
        fetch(&self.config, &self.model, &mut |_| {})
    }

    fn folder(&self) -> Result<PathBuf, HubError> {
        cached_or_fetched(&self.config, &self.model, &mut |_| {})
    }

    fn refusal(&self) -> String {
        self.fetch().unwrap_err().to_string()
    }

    fn is_not_whole(&self) -> bool {
        Cache::new(&self.config, &self.model).whole().is_err()
    }

    /// Blobs and parts of blobs in the cache.
    fn blobs(&self) -> Vec<String> {
        let blobs = self.config.cache.join("models--org--tiny/blobs");
        fs::read_dir(blobs)
            .map_or(vec![], |all| all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
    }
}

#[test]
fn a_model_comes_into_the_cache_as_other_programs_keep_it() {
    let desk = Desk::new(tiny(), Behaviour::default());
    let mut seen: Vec<(String, u64, u64)> = Vec::new();
    let folder = fetch(&desk.config, &desk.model, &mut |p| seen.push((p.file.into(), p.done, p.total))).unwrap();

    let root = desk.config.cache.join("models--org--tiny");
    assert_eq!(folder, root.join("snapshots").join(server::COMMIT));
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), server::COMMIT);
    assert_eq!(read(&folder), wanted(tiny()));
    backbone::load(&folder, backbone::Options::default()).unwrap();

    // Links to blobs, which are called by their checksums: SHA-256 where the file is large, otherwise git's.
    if cfg!(unix) {
        let target = |file: &str| fs::read_link(folder.join(file)).unwrap().to_str().unwrap().to_string();
        let weights = target("model.safetensors");
        assert!(weights.starts_with("../../blobs/") && weights.len() == "../../blobs/".len() + 64, "{weights}");
        // git hash-object of "{}".
        assert_eq!(target("1_Pooling/config.json"), "../../../blobs/9e26dfeeb6e641a33dae4961196235bdb965b21b");
    }
    assert!(desk.blobs().iter().all(|name| !name.contains('.')), "{:?}", desk.blobs());

    let (file, done, total) = seen.last().unwrap();
    assert_eq!((file.as_str(), done), ("model.safetensors", total));
    let most: usize = wanted(tiny()).iter().filter(|(name, _)| *name != "config.json").map(|(_, f)| f.len()).sum();
    assert_eq!(*total, most as u64);
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let desk = Desk::new(tiny(), Behaviour::default());
    let folder = desk.folder().unwrap();
    desk.server.forget();
    assert_eq!(desk.folder().unwrap(), folder);
    assert_eq!(desk.server.requests(), [""; 0]);
    // Who asks for what is newer asks once.
    assert_eq!(desk.fetch().unwrap(), folder);
    assert_eq!(desk.server.requests(), ["GET /api/models/org/tiny/revision/main"]);

    // A commit that is called by its hash is found without its name.
    fs::remove_dir_all(desk.config.cache.join("models--org--tiny/refs")).unwrap();
    desk.server.forget();
    let pinned = format!("hf:{NAME}@{}", server::COMMIT).parse().unwrap();
    assert_eq!(cached_or_fetched(&desk.config, &pinned, &mut |_| {}).unwrap(), folder);
    assert_eq!(desk.server.requests(), [""; 0]);

    // A file that is missing is fetched, and it alone.
    let file = folder.join("preprocessor_config.json");
    fs::remove_file(file.canonicalize().unwrap()).unwrap();
    desk.folder().unwrap();
    assert_eq!(read(&folder), wanted(tiny()));
    assert!(desk.server.requests().iter().all(|line| !line.contains("model.safetensors")));
}

#[test]
fn a_broken_connection_is_gone_on_with() {
    let weights = tiny()["model.safetensors"].clone();
    let desk = Desk::new(tiny(), Behaviour { breaks: vec![700, 300], ..Behaviour::default() });
    let folder = desk.fetch().unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights);
    let ranges: Vec<String> =
        desk.server.requests().into_iter().filter_map(|line| Some(line.split_once("GET /large/")?.1.into())).collect();
    assert_eq!(ranges, ["model.safetensors", "model.safetensors bytes=700-", "model.safetensors bytes=1000-"]);
}

#[test]
fn who_gives_up_goes_on_the_next_time() {
    let desk = Desk::new(tiny(), Behaviour { breaks: vec![700, 0, 0, 0], ..Behaviour::default() });
    let refusal = desk.refusal();
    assert!(refusal.contains("model.safetensors") && refusal.contains("can't be fetched"), "{refusal}");
    assert!(desk.is_not_whole());
    desk.server.forget();
    assert_eq!(read(&desk.folder().unwrap()), wanted(tiny()));
    let requests = desk.server.requests();
    assert!(requests.contains(&"GET /large/model.safetensors bytes=700-".to_string()), "{requests:?}");
    assert!(!requests.iter().any(|line| line.contains("config.json")), "{requests:?}");
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let behaviour = Behaviour { breaks: vec![700], without_ranges: true, ..Behaviour::default() };
    let desk = Desk::new(tiny(), behaviour);
    assert_eq!(read(&desk.fetch().unwrap()), wanted(tiny()));
}

#[test]
fn damaged_files_are_refused_and_deleted() {
    for file in ["model.safetensors", "config.json", "1_Pooling/config.json"] {
        let desk = Desk::new(tiny(), Behaviour { damages: Some(file), ..Behaviour::default() });
        let refusal = desk.refusal();
        assert!(refusal.starts_with(&format!("{file} of org/tiny came damaged")), "{refusal}");
        assert!(desk.is_not_whole());
        assert!(desk.blobs().iter().all(|name| !name.contains('.')), "{:?}", desk.blobs());
        desk.server.behave(Behaviour::default());
        assert_eq!(read(&desk.folder().unwrap()), wanted(tiny()));
    }
}

#[test]
fn a_damaged_part_of_an_earlier_run_is_found() {
    let desk = Desk::new(tiny(), Behaviour { breaks: vec![700, 0, 0, 0], ..Behaviour::default() });
    desk.fetch().unwrap_err();
    let part = desk.blobs().into_iter().find(|name| name.ends_with(".incomplete")).unwrap();
    let part = desk.config.cache.join("models--org--tiny/blobs").join(part);
    fs::write(&part, [0; 700]).unwrap();
    assert!(matches!(desk.fetch(), Err(HubError::Checksum { file, .. }) if file == "model.safetensors"));
    assert!(!part.exists());
    // One that is longer than the file is begun anew.
    fs::write(&part, [0; 1 << 17]).unwrap();
    assert_eq!(read(&desk.fetch().unwrap()), wanted(tiny()));
}

#[test]
fn what_passes_is_tried_three_times() {
    let desk = Desk::new(tiny(), Behaviour { unavailable: 2, ..Behaviour::default() });
    desk.fetch().unwrap();
    let desk = Desk::new(tiny(), Behaviour { unavailable: 3, ..Behaviour::default() });
    let refusal = desk.refusal();
    assert!(refusal.contains("status 503"), "{refusal}");
    assert_eq!(desk.server.requests().len(), 3);
}

#[test]
fn models_that_are_not_there_or_not_shown() {
    let mut desk = Desk::new(tiny(), Behaviour { token: Some("hf_secret"), ..Behaviour::default() });
    let refusal = desk.refusal();
    assert!(refusal.contains("status 401") && refusal.contains("HF_TOKEN"), "{refusal}");
    desk.config.token = Some("hf_other".into());
    let refusal = desk.refusal();
    assert!(refusal.contains("status 403") && !refusal.contains("hf_other"), "{refusal}");
    // The server that has the large files refuses who shows it a token.
    desk.config.token = Some("hf_secret".into());
    desk.fetch().unwrap();

    for name in ["hf:org/none", "hf:org/tiny@none"] {
        desk.model = name.parse().unwrap();
        assert!(matches!(desk.fetch(), Err(HubError::Absent { .. })));
        assert!(desk.refusal().contains("has no model org/"), "{}", desk.refusal());
    }
}

#[test]
fn offline_only_the_cache_is_used() {
    let mut desk = Desk::new(tiny(), Behaviour::default());
    desk.config.offline = true;
    let refusal = desk.refusal();
    assert!(refusal.starts_with("HF_HUB_OFFLINE is set") && refusal.contains("config.json of org/tiny"), "{refusal}");
    desk.config.offline = false;
    let folder = desk.fetch().unwrap();
    desk.config.offline = true;
    desk.server.forget();
    assert_eq!(desk.folder().unwrap(), folder);
    assert_eq!(desk.fetch().unwrap(), folder);
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    assert!(desk.folder().unwrap_err().to_string().contains("has no model.safetensors of org/tiny"));
    assert_eq!(desk.server.requests(), [""; 0]);
}

/// [`tiny`] with its weights in two files.
fn sharded(names: [&str; 2]) -> Files {
    let mut files = tiny();
    let weights = files.remove("model.safetensors").unwrap();
    let index = serde_json::json!({ "weight_map": { "a": names[0], "b": names[1] } });
    files.insert("model.safetensors.index.json".into(), index.to_string().into_bytes());
    for (name, half) in names.iter().zip(weights.chunks(weights.len().div_ceil(2))) {
        files.insert(name.to_string(), half.to_vec());
    }
    files
}

#[test]
fn shards_are_those_that_the_index_names() {
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let mut desk = Desk::new(sharded(names), Behaviour::default());
    let folder = desk.fetch().unwrap();
    assert_eq!(read(&folder), wanted(sharded(names)));
    fs::remove_file(folder.join(names[1])).unwrap();
    desk.config.offline = true;
    assert!(desk.refusal().contains(names[1]));

    let mut files = sharded(names);
    files.remove(names[0]);
    let refusal = Desk::new(files, Behaviour::default()).refusal();
    assert!(refusal.contains(&format!("has no {}", names[0])), "{refusal}");
    for name in ["../outside.safetensors", "/outside.safetensors", "script.sh"] {
        let refusal = Desk::new(sharded([names[0], name]), Behaviour::default()).refusal();
        assert!(refusal.contains(&format!("names \"{name}\"")), "{refusal}");
    }
}

#[test]
fn a_mirror_may_list_no_files() {
    let desk = Desk::new(tiny(), Behaviour { without_list: true, ..Behaviour::default() });
    assert_eq!(read(&desk.fetch().unwrap()), wanted(tiny()));
}

#[test]
fn answers_without_checksums_are_refused() {
    let desk = Desk::new(tiny(), Behaviour { without_checksums: true, ..Behaviour::default() });
    let refusal = desk.refusal();
    assert!(refusal.contains("has no checksum") && refusal.contains("HF_ENDPOINT"), "{refusal}");
}

#[test]
fn models_that_can_t_be_backbones_cost_nothing() {
    let mut files = tiny();
    files.insert("config.json".into(), br#"{"model_type": "hovercraft"}"#.to_vec());
    let desk = Desk::new(files, Behaviour::default());
    assert!(desk.refusal().contains("hovercraft"), "{}", desk.refusal());
    for missing in ["config.json", "model.safetensors", "preprocessor_config.json"] {
        let mut files = tiny();
        files.remove(missing);
        let desk = Desk::new(files, Behaviour::default());
        let refusal = desk.refusal();
        assert!(refusal.starts_with("org/tiny has no ") && refusal.contains(missing), "{refusal}");
        assert!(!desk.server.requests().iter().any(|line| line.starts_with("GET /large")));
    }
}

#[test]
fn two_at_once_share_one_transfer() {
    let desk = Desk::new(tiny(), Behaviour::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| desk.fetch().unwrap());
        }
    });
    let transfers = desk.server.requests().into_iter().filter(|line| line.starts_with("GET /large")).count();
    assert_eq!(transfers, 1);
}

#[test]
fn real_weights_come_whole() {
    let Some(data) = std::env::var_os("HETEROTUNE_DATA").map(PathBuf::from) else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "HETEROTUNE_DATA is not set");
        println!("skipped: HETEROTUNE_DATA does not name a folder with models/");
        return;
    };
    let files = read(&data.join("models/vit-cifar10-d128-l6"));
    let desk = Desk::new(files.clone(), Behaviour { breaks: vec![1_000_000], ..Behaviour::default() });
    let folder = desk.fetch().unwrap();
    assert_eq!(read(&folder)["model.safetensors"], files["model.safetensors"]);
    assert!(!folder.join("golden.json").exists());
    backbone::load(&folder, backbone::Options::default()).unwrap();
}

#[test]
fn nobody_answers() {
    let mut desk = Desk::new(tiny(), Behaviour::default());
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    desk.config.endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let refusal = desk.refusal();
    assert!(refusal.contains("check the network"), "{refusal}");
}
