//! The scenes that guest-tests offers: one boot each, with what it asks of the guest.

use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::Command;

/// A scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) name: String,
    pub(crate) cpus: u32,
    pub(crate) memory: String,
    pub(crate) timeout_seconds: u64,
    pub(crate) load_ublk: bool,
    /// Whether rublk is to be in the guest.
    pub(crate) rublk: bool,
}

/// Asks the program, here on the host.
pub(crate) fn list(guest_tests: &Path) -> Result<Vec<Scene>> {
    let output = Command::new(guest_tests)
        .arg("--list-scenes")
        .output()
        .context("cannot run guest-tests")?;
    if !output.status.success() {
        bail!(
            "guest-tests --list-scenes failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8(output.stdout)?;
    let scenes: Vec<Scene> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(parse)
        .collect::<Result<_>>()?;
    if scenes.is_empty() {
        bail!("guest-tests --list-scenes names no scene: there is nothing to run in a guest");
    }
    Ok(scenes)
}

/// Reads `name cpus=4 memory=4096M timeout=900 with=rublk no-ublk`.
fn parse(line: &str) -> Result<Scene> {
    let mut words = line.split_whitespace();
    let name = words.next().context("a scene without a name")?.to_owned();
    let mut scene = Scene {
        name,
        cpus: 2,
        memory: "2G".to_owned(),
        timeout_seconds: 600,
        load_ublk: true,
        rublk: false,
    };
    for word in words {
        match word.split_once('=') {
            Some(("cpus", value)) => scene.cpus = value.parse().with_context(|| line.to_owned())?,
            Some(("memory", value)) => scene.memory = value.to_owned(),
            Some(("timeout", value)) => {
                scene.timeout_seconds = value.parse().with_context(|| line.to_owned())?
            }
            Some(("with", "rublk")) => scene.rublk = true,
            None if word == "no-ublk" => scene.load_ublk = false,
            _ => bail!("guest-tests --list-scenes: unknown word {word} in: {line}"),
        }
    }
    Ok(scene)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_scene_says_what_it_needs() {
        let scene = parse("recovery cpus=4 memory=4096M timeout=900 with=rublk no-ublk").unwrap();
        assert_eq!(
            (scene.name.as_str(), scene.cpus, scene.memory.as_str()),
            ("recovery", 4, "4096M")
        );
        assert_eq!((scene.timeout_seconds, scene.load_ublk), (900, false));
        assert!(scene.rublk);
        let life = parse("life").unwrap();
        assert!(life.load_ublk && !life.rublk);
    }

    #[test]
    fn an_unknown_word_is_an_error_not_ignored() {
        assert!(parse("life cpu=4").is_err());
        assert!(parse("life with=floppy").is_err());
    }
}
