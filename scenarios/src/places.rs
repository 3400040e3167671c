//! Where the files are that a scenario names.

use crate::{RunError, Scenario};
use std::path::{Component, Path, PathBuf};

/// The environment variable that a scenario's paths may begin with.
const DATA: &str = "HETEROTUNE_DATA";

/// Where a scenario's paths start.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Relative ones: the folder of the scenario's file.
    pub(crate) folder: PathBuf,
    /// Those below `$HETEROTUNE_DATA`, if it is set.
    pub(crate) data: Option<PathBuf>,
}

impl Places {
    /// Relative to `folder`, and to what the environment says.
    pub(crate) fn below(folder: PathBuf) -> Self {
        Self { folder, data: std::env::var_os(DATA).filter(|data| !data.is_empty()).map(PathBuf::from) }
    }

    /// Where `path` is.
    ///
    /// # Errors
    /// A path below `$HETEROTUNE_DATA`, which is not set.
    fn locate(&self, path: &Path) -> Result<PathBuf, RunError> {
        let Some(rest) = below_data(path) else { return Ok(self.folder.join(path)) };
        let data = self.data.as_ref().ok_or_else(|| RunError::NoDataFolder(path.into()))?;
        Ok(std::path::absolute(data).map_err(|source| RunError::Read { path: data.clone(), source })?.join(rest))
    }
}

/// What follows `$HETEROTUNE_DATA/`.
fn below_data(path: &Path) -> Option<&Path> {
    path.strip_prefix(format!("${DATA}")).ok()
}

/// Whether a path begins with a variable that there isn't.
pub(crate) fn is_unknown(path: &Path) -> bool {
    let first = path.components().next();
    let variable = matches!(first, Some(Component::Normal(name)) if name.to_string_lossy().starts_with('$'));
    variable && below_data(path).is_none()
}

impl Scenario {
    /// The keys of all paths, and the paths.
    pub(crate) fn paths(&self) -> Vec<(String, &Path)> {
        let data = [
            ("data.file", Some(&self.data.file)),
            ("data.test", self.data.test.as_ref()),
            ("data.anchors_file", self.data.anchors_file.as_ref()),
        ];
        let data = data.into_iter().filter_map(|(key, path)| Some((key.to_owned(), path?.as_path())));
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.map(|(index, node)| (format!("node.{index}.backbone"), node.backbone.as_path()));
        let readouts = self.task.readouts.iter().enumerate();
        let readouts = readouts.map(|(index, path)| (format!("task.readouts.{index}"), path.as_path()));
        data.chain(nodes).chain(readouts).collect()
    }

    /// The same scenario with each path where it is.
    ///
    /// # Errors
    /// A path that is nowhere.
    pub(crate) fn located(&self, places: &Places) -> Result<Self, RunError> {
        let mut scenario = self.clone();
        let data = &mut scenario.data;
        let files = [Some(&mut data.file), data.test.as_mut(), data.anchors_file.as_mut()].into_iter().flatten();
        let backbones = scenario.nodes.iter_mut().map(|node| &mut node.backbone);
        for path in files.chain(backbones).chain(&mut scenario.task.readouts) {
            *path = places.locate(path)?;
        }
        Ok(scenario)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_at_the_scenario_or_at_the_data() {
        let mut scenario = Scenario::quickstart().unwrap();
        scenario.data.test = Some("$HETEROTUNE_DATA/text/test.csv".into());
        let places = Places { folder: "/home".into(), data: Some("/data".into()) };
        let located = scenario.located(&places).unwrap();
        assert_eq!(located.data.file, Path::new("/home/data/digits.csv"));
        assert_eq!(located.data.test.as_deref(), Some(Path::new("/data/text/test.csv")));
        assert_eq!(located.nodes[0].backbone, Path::new("/home/backbones/vit-d32-l2"));
        let message = scenario.located(&Places { data: None, ..places }).unwrap_err().to_string();
        assert!(message.starts_with("$HETEROTUNE_DATA/text/test.csv is below HETEROTUNE_DATA, which is not set"));
    }

    #[test]
    fn other_variables_are_none() {
        let unknown = ["$HOME/x", "$HETEROTUNE_DATAS/x"].map(|path| is_unknown(Path::new(path)));
        let known = ["$HETEROTUNE_DATA/x", "data/$x", "/x", "x"].map(|path| is_unknown(Path::new(path)));
        assert_eq!((unknown, known), ([true; 2], [false; 4]));
    }
}
