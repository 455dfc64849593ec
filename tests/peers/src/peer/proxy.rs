//! The peers `nginx` and `haproxy`, where they are installed: they accept and close.
//!
//! Their configuration is in memory (memfd_create(2)) and passed as a descriptor, so that nothing is left on
//! disk.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use rustix::fs::{MemfdFlags, memfd_create};

use super::PeerArgs;
use super::processes::Processes;

/// Where the two are beside the directories of PATH.
const SBIN: &str = "/usr/sbin:/usr/local/sbin";

/// Connections at a time: none stays.
const CONNECTIONS: u16 = 4096;

/// How nginx comes by its stream module.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stream {
    BuiltIn,
    Module(PathBuf),
}

/// Whether nginx is installed, with its stream module.
pub(crate) fn has_nginx() -> bool {
    nginx().is_ok()
}

/// Whether haproxy is installed.
pub(crate) fn has_haproxy() -> bool {
    find("haproxy").is_ok()
}

/// Runs nginx: one process per core, each with its listener (`reuseport`), which sends nothing and closes
/// (`return`,
/// <https://nginx.org/en/docs/stream/ngx_stream_return_module.html>).
pub(crate) fn run_nginx(args: &PeerArgs) -> anyhow::Result<()> {
    let (program, stream) = nginx()?;
    load::open_files::raise_limit()?;
    // It writes its number here, and what removes the file at the end cannot remove a descriptor.
    let pid = memory_file("nginx-pid", "")?;
    let module = match stream {
        Stream::BuiltIn => String::new(),
        Stream::Module(path) => format!("load_module {};\n", path.display()),
    };
    let config = format!(
        "{module}daemon off;\nmaster_process off;\npid {};\nerror_log stderr crit;\n\
         events {{ worker_connections {CONNECTIONS}; multi_accept on; }}\n\
         stream {{ server {{ listen {} reuseport backlog={}; return \"\"; }} }}\n",
        path_of(&pid),
        args.listen,
        args.backlog
    );
    let config = memory_file("nginx-config", &config)?;
    let words: Vec<OsString> =
        vec![program.into(), "-e".into(), "stderr".into(), "-c".into(), path_of(&config).into()];
    let mut processes = Processes::default();
    for cpu in args.cores()? {
        processes.start(cpu, words.clone(), Stdio::null())?;
    }
    processes.wait_for_all()
}

/// Runs haproxy: one thread and listener per core, which closes (`tcp-request session reject`, section 4.2 of
/// its configuration manual; `connection reject` would reset, which a client takes for a failure).
pub(crate) fn run_haproxy(args: &PeerArgs) -> anyhow::Result<()> {
    load::open_files::raise_limit()?;
    let config = format!(
        "global\n  nbthread {}\n  maxconn {CONNECTIONS}\ndefaults\n  mode tcp\n  timeout client 10s\n  \
         timeout connect 10s\n  timeout server 10s\nfrontend peer\n  bind {} shards by-thread backlog {}\n  \
         tcp-request session reject\n",
        args.cores()?.len(),
        args.listen,
        args.backlog
    );
    let config = memory_file("haproxy-config", &config)?;
    // Gives an error or does not come back.
    let error = Command::new(find("haproxy")?).args(["-db", "-f", &path_of(&config)]).exec();
    Err(error).context("run haproxy")
}

/// nginx, and how it comes by its stream module.
fn nginx() -> anyhow::Result<(PathBuf, Stream)> {
    let program = find("nginx")?;
    let version = Command::new(&program).arg("-V").output().context("run nginx -V")?;
    match stream_of(&String::from_utf8_lossy(&version.stderr)) {
        Some(Stream::Module(path)) if !path.exists() => {
            bail!(
                "{} does not exist: install nginx's stream module (Debian: libnginx-mod-stream)",
                path.display()
            )
        }
        Some(stream) => Ok((program, stream)),
        None => bail!("{} was built without its stream module", program.display()),
    }
}

/// How nginx comes by its stream module, from what `nginx -V` says.
fn stream_of(version: &str) -> Option<Stream> {
    let words = || version.split_whitespace();
    if words().any(|word| word == "--with-stream") {
        return Some(Stream::BuiltIn);
    }
    words().find(|&word| word == "--with-stream=dynamic")?;
    let directory = words().find_map(|word| word.strip_prefix("--modules-path="))?;
    Some(Stream::Module(Path::new(directory).join("ngx_stream_module.so")))
}

/// The path of a program.
fn find(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(std::env::split_paths(SBIN));
    let mut paths = directories.map(|directory| directory.join(program));
    paths
        .find(|path| path.is_file())
        .with_context(|| format!("{program} is neither in PATH nor in {SBIN}: install it"))
}

/// A file without a name that programs inherit.
fn memory_file(name: &str, text: &str) -> anyhow::Result<OwnedFd> {
    let file = memfd_create(name, MemfdFlags::empty()).context("memfd_create")?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes()).with_context(|| format!("write {name}"))?;
    Ok(file.into())
}

/// By which a program opens a file that it inherits, anew and so from its beginning.
fn path_of(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_says_how_it_comes_by_its_stream_module() {
        let module = "configure arguments: --modules-path=/m --with-stream=dynamic --with-stream_ssl_module";
        assert_eq!(stream_of(module), Some(Stream::Module("/m/ngx_stream_module.so".into())));
        assert_eq!(stream_of("--with-stream --with-threads"), Some(Stream::BuiltIn));
        assert_eq!(stream_of("--with-stream_ssl_module"), None);
    }
}
