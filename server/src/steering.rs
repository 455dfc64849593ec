//! The classic BPF program that picks the listener of the CPU on which a SYN is processed. Pure.
//!
//! The program returns an index into the reuseport group, which is in `listen()` order; an index beyond the
//! group makes the kernel fall back to the hash (`reuseport_select_sock` in `net/core/sock_reuseport.c`).

use tune::cpu_set::Cpu;

/// One instruction: `struct sock_filter` of `linux/filter.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Operation and operand kinds.
    pub(crate) code: u16,
    /// Instructions to skip if the condition holds.
    pub(crate) jump_true: u8,
    /// Instructions to skip if it does not.
    pub(crate) jump_false: u8,
    /// The operand.
    pub(crate) operand: u32,
}

/// `BPF_LD | BPF_W | BPF_ABS`
const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JGE | BPF_K`
const JUMP_IF_AT_LEAST: u16 = 0x35;
/// `BPF_JMP | BPF_JA`
const JUMP: u16 = 0x05;
/// `BPF_ALU | BPF_SUB | BPF_K`
const SUBTRACT: u16 = 0x14;
/// `BPF_ALU | BPF_ADD | BPF_K`
const ADD: u16 = 0x04;
/// `BPF_RET | BPF_A`
const RETURN_ACCUMULATOR: u16 = 0x16;
/// `BPF_RET | BPF_K`
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_CPU`: the number of the CPU that runs the program.
const CPU_NUMBER: u32 = 0xffff_f000 + 36;

/// An index that no group has: the kernel uses the hash.
const USE_HASH: u32 = u32::MAX;

/// Neighbouring CPUs whose listeners are neighbours too: CPU `first + i` has listener `index + i`, `i <
/// length`.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: Cpu,
    length: u32,
    index: u32,
}

/// The program for listeners of these CPUs, in the order in which they listen. A CPU without a listener uses
/// the hash.
pub(crate) fn program(cpus: &[Cpu]) -> Vec<Instruction> {
    let mut program = vec![instruction(LOAD, CPU_NUMBER)];
    emit(&runs(cpus), &mut program);
    program
}

fn instruction(code: u16, operand: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, operand }
}

fn runs(cpus: &[Cpu]) -> Vec<Run> {
    let mut indexed: Vec<(Cpu, u32)> = cpus.iter().copied().zip(0..).collect();
    indexed.sort_unstable();
    let mut runs: Vec<Run> = Vec::new();
    for (cpu, index) in indexed {
        match runs.last_mut() {
            Some(run) if cpu == run.first + run.length && index == run.index + run.length => run.length += 1,
            _ => runs.push(Run { first: cpu, length: 1, index }),
        }
    }
    runs
}

/// A binary search over the runs: log2(runs) comparisons for a SYN.
fn emit(runs: &[Run], program: &mut Vec<Instruction>) {
    match runs {
        [] => program.push(instruction(RETURN, USE_HASH)),
        [run] => {
            // Below `first` the subtraction wraps to a huge number: beyond the run, so the hash decides.
            program.push(instruction(SUBTRACT, run.first));
            program.push(Instruction { jump_false: 1, ..instruction(JUMP_IF_AT_LEAST, run.length) });
            program.push(instruction(RETURN, USE_HASH));
            program.push(instruction(ADD, run.index));
            program.push(instruction(RETURN_ACCUMULATOR, 0));
        }
        _ => {
            let (left, right) = runs.split_at(runs.len() / 2);
            program.push(Instruction { jump_false: 1, ..instruction(JUMP_IF_AT_LEAST, right[0].first) });
            let jump = program.len();
            program.push(instruction(JUMP, 0)); // over the left half; its length is not known yet
            emit(left, program);
            program[jump].operand = u32::try_from(program.len() - jump - 1)
                .expect("a program has at most 7 instructions for a CPU");
            emit(right, program);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kernel does with the program, as far as it uses it.
    fn run(program: &[Instruction], cpu: Cpu) -> u32 {
        let (mut accumulator, mut at) = (0u32, 0usize);
        loop {
            let Instruction { code, jump_true, jump_false, operand } = program[at];
            at += 1;
            match code {
                LOAD if operand == CPU_NUMBER => accumulator = cpu,
                SUBTRACT => accumulator = accumulator.wrapping_sub(operand),
                ADD => accumulator = accumulator.wrapping_add(operand),
                JUMP => at += operand as usize,
                JUMP_IF_AT_LEAST => {
                    at += usize::from(if accumulator >= operand { jump_true } else { jump_false });
                }
                RETURN => return operand,
                RETURN_ACCUMULATOR => return accumulator,
                _ => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn consecutive_cores_need_six_instructions() {
        let cpus: Vec<Cpu> = (0..48).collect();
        let program = program(&cpus);
        assert_eq!(program.len(), 6);
        assert_eq!([0, 47, 48, 1000].map(|cpu| run(&program, cpu)), [0, 47, USE_HASH, USE_HASH]);
    }

    #[test]
    fn the_largest_server_fits_the_kernels_limit() {
        let cpus: Vec<Cpu> = (0..1152).rev().step_by(2).collect();
        assert!(program(&cpus).len() <= 4096, "BPF_MAXINSNS");
    }

    proptest! {
        #[test]
        fn each_cpu_gets_its_own_listener_and_the_others_the_hash(
            cpus in prop::collection::hash_set(0..300u32, 0..200).prop_map(|set| set.into_iter().collect::<Vec<_>>())
        ) {
            let program = program(&cpus);
            for cpu in 0..310 {
                let expected = (0..).zip(&cpus).find(|&(_, &c)| c == cpu).map_or(USE_HASH, |(index, _)| index);
                prop_assert_eq!(run(&program, cpu), expected, "CPU {}", cpu);
            }
        }
    }
}
