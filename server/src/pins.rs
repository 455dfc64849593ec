//! Keeps the workers on their CPUs.
//!
//! When a CPU goes offline, the kernel lets the threads that were bound to it run on any other, and leaves it
//! at that when the CPU comes back (`select_fallback_rq()` in `kernel/sched/core.c`; seen on Linux 7.3). So
//! the main thread looks every [`TICK`], and binds them again.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tune::affinity;
use tune::cpu_set::{Cpu, CpuSet};
use tune::errno::describe;

/// Between two looks: one system call for each worker.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// The threads of the workers.
#[derive(Debug, Default)]
pub(crate) struct Pins(Vec<Pin>);

#[derive(Debug)]
struct Pin {
    cpu: Cpu,
    thread: u32,
    /// It could not be bound, which was said.
    away: bool,
}

impl Pins {
    /// A thread that is bound to this CPU, and shall stay there.
    pub(crate) fn add(&mut self, cpu: Cpu, thread: u32) {
        self.0.push(Pin { cpu, thread, away: false });
    }

    /// The worker of this CPU ends: its thread's number may be somebody else's soon.
    pub(crate) fn remove(&mut self, cpu: Cpu) {
        self.0.retain(|pin| pin.cpu != cpu);
    }

    /// Binds those again that are not bound any more; a line for each of which there is something new.
    pub(crate) fn keep(&mut self) -> Vec<String> {
        self.0.iter_mut().filter_map(Pin::keep).collect()
    }
}

impl Pin {
    fn keep(&mut self) -> Option<String> {
        let own: CpuSet = [self.cpu].into_iter().collect();
        let bound = affinity::allowed_of(self.thread).and_then(|allowed| {
            if allowed == own { Ok(false) } else { affinity::set_of(self.thread, &own).map(|()| true) }
        });
        let cpu = self.cpu;
        match bound {
            Ok(false) => None,
            Ok(true) => {
                self.away = false;
                Some(format!("core {cpu}: its worker had left its CPU and is bound to it again"))
            }
            Err(error) if self.away || has_ended(&error) => None,
            Err(error) => {
                self.away = true;
                Some(format!(
                    "core {cpu}: its CPU is offline or not allowed any more ({}): its worker runs elsewhere \
                     until it is back",
                    describe(&error)
                ))
            }
        }
    }
}

/// The worker ends, which is said in another way.
fn has_ended(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_is_not_there_is_said_once() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (sender, thread) = std::sync::mpsc::channel();
        let worker = std::thread::spawn(move || {
            sender.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
            let _ = stopped.recv();
        });
        let mut pins = Pins::default();
        pins.add(8191, thread.recv().unwrap());
        let said = pins.keep();
        assert!(said.len() == 1 && said[0].starts_with("core 8191: its CPU is offline"), "{said:?}");
        assert_eq!(pins.keep(), Vec::<String>::new());
        pins.remove(8191);
        assert!(pins.0.is_empty());
        drop(stop);
        worker.join().unwrap();
    }
}
