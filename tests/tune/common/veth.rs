//! A veth pair with several queues in namespaces of its own: the real kernel, and nothing of the host.

use std::ffi::CStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use lab::namespace::Namespace;
use lab::veth::{VethEnd, create_veth_pair};
use netlink_bindings::rt_link::{self, Ifinfomsg};
use netlink_bindings::traits::{NetlinkRequest, Protocol};
use netlink_socket2::NetlinkSocket;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Run, is_root, tune};

/// The interface that the tests tune.
pub(crate) const NIC: &str = "nic0";

/// `tune ARGUMENTS… --interface nic0`; `restore` goes by the journal and takes no interface.
pub(crate) fn of_nic(arguments: &[&str]) -> Command {
    let mut command = tune();
    command.args(arguments);
    if !arguments.contains(&"restore") {
        command.args(["--interface", NIC]);
    }
    command
}

/// The pair; gone with this value. `/run`, where the journal is, is a tmpfs of the namespace.
pub(crate) struct Veth {
    near: Namespace,
    _far: Namespace,
}

impl Veth {
    /// A pair with this many RX and TX queues at each end, or `None` and a line that says so without root.
    pub(crate) fn with_queues(queues: u32) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let (near, far) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        let end = |namespace, name, last| VethEnd {
            namespace,
            name,
            address: Ipv4Addr::new(198, 18, 0, last),
            tx_queues: queues,
            rx_queues: queues,
        };
        create_veth_pair(&end(&near, NIC, 1), &end(&far, "wire0", 2)).unwrap();
        Some(Self { near, _far: far })
    }

    /// Does something inside the namespaces of [`NIC`].
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.near.run(work).unwrap()
    }

    /// As [`Veth::inside`], but in the network namespace of `other`: `/sys` still shows this one's, as after
    /// `nsenter --net`.
    pub(crate) fn with_network_of<T: Send>(&self, other: &Namespace, work: impl FnOnce() -> T + Send) -> T {
        self.inside(|| {
            move_into_link_name_space(other.network(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }

    /// The namespaces of [`NIC`].
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.near
    }

    /// `tune ARGUMENTS…` inside, see [`of_nic`].
    pub(crate) fn tune(&self, arguments: &[&str]) -> Run {
        self.output(&mut of_nic(arguments))
    }

    /// Runs a command inside, to its end.
    pub(crate) fn output(&self, command: &mut Command) -> Run {
        self.inside(|| command.output().unwrap()).into()
    }

    /// Gives [`NIC`] one more name, as `ip link property add` does.
    pub(crate) fn add_alternative_name(&self, name: &CStr) {
        let nic = std::ffi::CString::new(NIC).unwrap();
        let mut request = rt_link::Request::new().set_create().set_excl().op_newlink_do(&Ifinfomsg::new());
        request.encode().push_ifname(&nic).nested_prop_list().push_alt_ifname(name).end_nested();
        self.inside(|| NetlinkSocket::new().request(&NewLinkProperty(request)).unwrap().recv_ack().unwrap());
    }

    /// What the settings of [`NIC`] and the sysctls of the shipped profiles hold, with their paths.
    pub(crate) fn values(&self) -> Vec<(String, String)> {
        self.inside(|| {
            let queues = format!("/sys/class/net/{NIC}/queues");
            let mut paths: Vec<String> = super::names(Path::new(&queues), |_| true)
                .iter()
                .flat_map(|queue| {
                    let files: &[&str] =
                        if queue.starts_with("rx-") { &["rps_cpus", "rps_flow_cnt"] } else { &["xps_cpus"] };
                    files.iter().map(|file| format!("{queues}/{queue}/{file}")).collect::<Vec<_>>()
                })
                .collect();
            for sysctl in
                ["core/somaxconn", "ipv4/tcp_migrate_req", "ipv4/tcp_rmem", "ipv4/tcp_slow_start_after_idle"]
            {
                paths.push(format!("/proc/sys/net/{sysctl}"));
            }
            let read = |path: String| {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
                (path, text)
            };
            paths.into_iter().map(read).collect()
        })
    }
}

/// The bindings have no `RTM_NEWLINKPROP`; its message is that of `RTM_NEWLINK`.
struct NewLinkProperty<R>(R);

impl<R: NetlinkRequest> NetlinkRequest for NewLinkProperty<R> {
    type ReplyType<'buf> = R::ReplyType<'buf>;

    fn protocol(&self) -> Protocol {
        /// include/uapi/linux/rtnetlink.h
        const RTM_NEWLINKPROP: u16 = 108;
        match self.0.protocol() {
            Protocol::Raw { protonum, .. } => Protocol::Raw { protonum, request_type: RTM_NEWLINKPROP },
            other => other,
        }
    }

    fn flags(&self) -> u16 {
        self.0.flags()
    }

    fn payload(&self) -> &[u8] {
        self.0.payload()
    }

    fn decode_reply(buffer: &[u8]) -> Self::ReplyType<'_> {
        R::decode_reply(buffer)
    }
}

/// Whether the kernel tells which thread polls which queue (netlink family `netdev`, since Linux 6.8); if
/// not, a line that says so. tune then binds none.
pub(crate) fn tells_threads_of_queues() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_str().unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let tells = (numbers.next(), numbers.next()) >= (Some(6), Some(8));
    if !tells {
        println!("SKIPPED: needs Linux 6.8 or later, which tells the thread of a queue; this is {release}");
    }
    tells
}
