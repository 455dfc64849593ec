//! Which listener gets a SYN, and which socket a datagram.

use super::*;

/// By CPU first, whatever the order of the CPUs; from the fall-back on by hash, with listeners that live on,
/// and nothing that was accepted or waited is lost.
#[test]
fn live_listeners_change_from_cpu_to_hash() {
    let Some([first, second]) = two_cpus() else { return };
    for cpus in [[first, second], [second, first]] {
        let listeners = listening(&Config { steer: Steer::Auto, ..config(&[LOOPBACK, "[::1]:0"]) }, &cpus);
        let descriptors = listeners.descriptors().unwrap();
        for (index, &address) in listeners.addresses().iter().enumerate() {
            let workers: Vec<&OwnedFd> = descriptors.iter().map(|worker| &worker[index]).collect();
            assert_eq!(accepted_of(60, cpus[0], address, &workers), [60, 0], "{address}");
            assert_eq!(accepted_of(60, cpus[1], address, &workers), [0, 60], "{address}");
        }
        let waiting = on_cpu(first, || TcpStream::connect(listeners.addresses()[0]).unwrap());
        listeners.steer_by_hash().unwrap();
        let worker = cpus.iter().position(|&cpu| cpu == first).unwrap();
        let accepted = accept(&descriptors[worker][0]);
        assert_eq!(accepted.peer_addr().unwrap().as_socket(), waiting.local_addr().ok());
        for (index, &address) in listeners.addresses().iter().enumerate() {
            let workers: Vec<&OwnedFd> = descriptors.iter().map(|worker| &worker[index]).collect();
            // Each of two gets fewer than 40 of 200 once in 10^18 runs.
            let accepted = accepted_of(200, first, address, &workers);
            assert!(accepted.iter().all(|&count| count >= 40), "{address}: {accepted:?}");
            let cpu = sockopt::socket_incoming_cpu(workers[0]).unwrap();
            assert_eq!(cpu, u32::MAX, "SO_INCOMING_CPU is -1");
        }
    }
}

/// The program and SO_INCOMING_CPU each steer alone: taking one of them away is not enough.
#[test]
fn the_second_line_steers_when_the_first_is_gone() {
    let Some([first, second]) = two_cpus() else { return };
    let steered = |change: fn(&[Socket])| {
        let listeners = listening(&config(&[LOOPBACK]), &[first, second]);
        change(&listeners.groups[0]);
        let descriptors = listeners.descriptors().unwrap();
        let workers: Vec<&OwnedFd> = descriptors.iter().map(|worker| &worker[0]).collect();
        accepted_of(60, second, listeners.addresses()[0], &workers)
    };
    assert_eq!(steered(|group| reuseport::detach(&group[0]).unwrap()), [0, 60]);
    let reset = |group: &[Socket]| group.iter().for_each(|socket| reuseport::set_cpu(socket, None).unwrap());
    assert_eq!(steered(reset), [0, 60]);
}

#[test]
fn without_steering_there_is_nothing_to_fall_back_from() {
    let listeners = listening(&Config { steer: Steer::Hash, ..config(&[LOOPBACK]) }, &[0, 1]);
    let message = listeners.steer_by_hash().unwrap_err().to_string();
    assert!(message.contains("SO_DETACH_REUSEPORT_BPF for 127.0.0.1:"), "{message}");
}

#[test]
fn datagrams_are_steered_as_connections_are() {
    let Some([first, second]) = two_cpus() else { return };
    for cpus in [[first, second], [second, first]] {
        let listeners = Listeners::bind(&Config { udp: true, ..config(&[LOOPBACK]) }, &cpus).unwrap();
        listeners.listen(16).unwrap();
        let descriptors = listeners.descriptors().unwrap();
        let workers: Vec<&OwnedFd> = descriptors.iter().map(|worker| &worker[0]).collect();
        let address = listeners.addresses()[0];
        assert_eq!(received_of(60, cpus[0], address, &workers), [60, 0]);
        assert_eq!(received_of(60, cpus[1], address, &workers), [0, 60]);
        reuseport::detach(&listeners.groups[0][0]).unwrap();
        assert_eq!(received_of(60, cpus[1], address, &workers), [0, 60], "by SO_INCOMING_CPU");
    }
}

#[test]
fn datagrams_are_spread_by_hash_after_the_fall_back() {
    let Some([first, second]) = two_cpus() else { return };
    let listeners = Listeners::bind(&Config { udp: true, ..config(&[LOOPBACK]) }, &[first, second]).unwrap();
    listeners.steer_by_hash().unwrap();
    let descriptors = listeners.descriptors().unwrap();
    let workers: Vec<&OwnedFd> = descriptors.iter().map(|worker| &worker[0]).collect();
    let received = received_of(200, first, listeners.addresses()[0], &workers);
    assert!(
        received.iter().sum::<usize>() == 200 && received.iter().all(|&count| count >= 40),
        "{received:?}"
    );
}
