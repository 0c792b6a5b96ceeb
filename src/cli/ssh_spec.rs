//! `--ssh default|ID[=SOCKET|KEYFILE[,KEYFILE…]]`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::surroundings::variable;
use crate::{
    error::{Error, Kind},
    front::Agent,
};

/// The agents by id; key files are read.
pub(super) fn agents(specs: &[String]) -> Result<BTreeMap<String, Arc<Agent>>, Error> {
    let mut agents = BTreeMap::new();
    for spec in specs {
        let (id, paths) = parse(spec)?;
        let paths = if paths.is_empty() { vec![own_agent(&id)?] } else { paths };
        let agent = Arc::new(Agent::open(&id, &paths)?);
        if agents.insert(id.clone(), agent).is_some() {
            return Err(
                Error::new(Kind::Usage, format!("`--ssh {id}` is given twice")).help("give several keys in one: `--ssh ID=FILE,FILE`")
            );
        }
    }
    Ok(agents)
}

fn own_agent(id: &str) -> Result<PathBuf, Error> {
    variable("SSH_AUTH_SOCK").map(PathBuf::from).ok_or_else(|| {
        Error::new(Kind::Request, format!("`--ssh {id}` has no agent: SSH_AUTH_SOCK is not set"))
            .help(format!("start `ssh-agent` and add a key, or name a key: `--ssh {id}=$HOME/.ssh/id_ed25519`"))
    })
}

/// The id, and the files it is given.
fn parse(spec: &str) -> Result<(String, Vec<PathBuf>), Error> {
    let usage =
        |text: String| Error::new(Kind::Usage, text).help("the form is `--ssh default` or `--ssh ID=SOCKET` or `--ssh ID=KEYFILE,KEYFILE`");
    let (id, paths) = spec.split_once('=').unwrap_or((spec, ""));
    if spec.is_empty() {
        return Err(usage("`--ssh` has no value".to_owned()));
    }
    let id = if id.is_empty() { "default" } else { id };
    let mut files = Vec::new();
    for path in paths.split(',').filter(|_| !paths.is_empty()) {
        match path.split_once('=') {
            _ if path.is_empty() => return Err(usage(format!("`--ssh {spec}` names an empty path"))),
            Some((key, _)) if key.eq_ignore_ascii_case("raw") => {
                return Err(Error::new(
                    Kind::Request,
                    format!("lapstrake passes on no socket that is not an ssh agent's: `{path}` of `--ssh {id}`"),
                )
                .help("leave it out"));
            }
            _ => files.push(PathBuf::from(path)),
        }
    }
    Ok((id.to_owned(), files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_no_path_or_several() {
        let read = |spec: &str| parse(spec).ok();
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(read("default"), Some(("default".into(), paths(&[]))));
        assert_eq!(read("default="), Some(("default".into(), paths(&[]))));
        assert_eq!(read("=/run/agent"), Some(("default".into(), paths(&["/run/agent"]))));
        assert_eq!(read("git=/a,/b"), Some(("git".into(), paths(&["/a", "/b"]))));
        assert_eq!(read("git=/a=b"), Some(("git".into(), paths(&["/a=b"]))));
        for spec in ["", "a=b,,c", "a=b,raw=true"] {
            assert_eq!(read(spec), None, "{spec}");
        }
    }
}
