//! `capture` and `diff`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};

use super::profile_file::read_text;
use super::root::Root;
use super::{CHANGES, Session, complain, print};
use crate::capture::{self, Format as Archive, pack};
use crate::compare::{self, Difference};
use crate::errno::describe;
use crate::host::{Host, InterfaceName, ToldMap, nic};
use crate::profile::Profile;
use crate::report::{self, Format};
use crate::setting::{Setting, Value};

/// `capture FILE [IFACE…]`.
pub(super) fn capture(
    session: &Session,
    file: &Path,
    interfaces: &[String],
    profile: Option<&Path>,
) -> Result<ExitCode> {
    let interfaces: Vec<InterfaceName> =
        interfaces.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    let more = profile.map(|profile| session.profile(profile)).transpose()?;
    let more = more.map(|profile| profile.sysctl_names()).unwrap_or_default();
    let to_stdout = file == Path::new("-");
    let format = if to_stdout { Archive::Tar } else { Archive::of(file).ok_or_else(|| bad_name(file))? };
    let captured = capture::capture(session.root.reopen()?, &interfaces, &more)?;
    let failed: Vec<anyhow::Error> = captured.failed.iter().map(|reason| anyhow!("{reason}")).collect();
    if to_stdout {
        print(|out| pack(&captured.tree, format, out))?;
    } else {
        let created = OpenOptions::new().write(true).create_new(true).open(file);
        let write = created.and_then(|out| pack(&captured.tree, format, out));
        write.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                anyhow!("write capture {}: it exists; name a new file", file.display())
            }
            _ => anyhow!("write capture {}: {}", file.display(), describe(&error)),
        })?;
        print(|out| report::capture(out, session.format, file, &captured))?;
    }
    failed.iter().for_each(complain);
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bad_name(file: &Path) -> anyhow::Error {
    anyhow!("write capture {}: name a file that ends in .tar.gz or .tar, or - for stdout", file.display())
}

/// `diff A B`.
pub(super) fn diff(a: &Path, b: &Path, format: Format) -> Result<ExitCode> {
    let is_host = [is_host(a)?, is_host(b)?];
    let (kind, differences) = match is_host {
        [true, true] => ("captures", compare::settings(&settings(a)?, &settings(b)?)),
        [false, false] => ("profiles", diff_profiles(a, b)?),
        _ => bail!(
            "{} and {} are not both captures and not both profiles; compare two of a kind",
            a.display(),
            b.display()
        ),
    };
    print(|out| report::diff(out, format, kind, (a, b), &differences))?;
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) })
}

/// A directory or an archive is one, any other file is taken for a profile.
fn is_host(path: &Path) -> Result<bool> {
    let fail = |error: io::Error| {
        anyhow!("read {}: {}; name a capture or a profile", path.display(), describe(&error))
    };
    if path.metadata().map_err(fail)?.is_dir() {
        return Ok(true);
    }
    let mut start = Vec::new();
    std::fs::File::open(path).map_err(fail)?.take(512).read_to_end(&mut start).map_err(fail)?;
    // Where a tar header has its magic; a profile is text.
    Ok(start.starts_with(&[0x1f, 0x8b]) || start.get(257..262) == Some(b"ustar"))
}

/// The settings of all interfaces of a host that are worth showing.
fn settings(path: &Path) -> Result<BTreeMap<Setting, Value>> {
    let of_path = || path.display().to_string();
    let root = Root::open(path).with_context(of_path)?;
    let sysctls = capture::sysctl_names(&root.files);
    let names = nic::interesting(&root.files).with_context(of_path)?;
    let host = Host::read_nics(&root.files, &names, &sysctls, &ToldMap::default());
    let host = host.and_then(|host| host.with_governors(&root.files)).with_context(of_path)?;
    Ok(host.settings())
}

fn diff_profiles(a: &Path, b: &Path) -> Result<Vec<Difference>> {
    let [a_text, b_text] = [read_text(a)?, read_text(b)?];
    Profile::parse(&a_text, &a.display().to_string())?;
    Profile::parse(&b_text, &b.display().to_string())?;
    Ok(compare::profiles(&a_text, &b_text)?)
}
