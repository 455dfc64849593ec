//! The CPU governor and how the interface polls: only what the profile asks for. Pure.

use super::{Desired, PlanError};
use crate::cpu_set::CpuSet;
use crate::host::{Host, NapiFile, Nic};
use crate::profile::{NapiWish, Profile};
use crate::setting::{Setting, Value};

/// The governor of the workers' CPUs; other CPUs keep theirs, unless the hardware has one policy for both.
pub(super) fn plan_governor(
    profile: &Profile,
    host: &Host,
    cpus: &CpuSet,
    desired: &mut Desired,
) -> Result<(), PlanError> {
    let Some(wanted) = &profile.cpu.governor else { return Ok(()) };
    let (mut without, mut lacking, mut available) = (CpuSet::new(), CpuSet::new(), String::new());
    for cpu in cpus.iter() {
        match host.governors.get(&cpu) {
            None => {
                without.insert(cpu);
            }
            Some(found) if !found.available.contains(wanted) && found.name != *wanted => {
                lacking.insert(cpu);
                available = found.available.iter().cloned().collect::<Vec<_>>().join(", ");
            }
            Some(_) => {
                let reason = format!("cpu.governor = \"{wanted}\", on the CPUs of the workers");
                desired.set(Setting::Governor(cpu), Value::Words(wanted.clone()), reason);
            }
        }
    }
    let wish = format!("cpu.governor = \"{wanted}\"");
    if !without.is_empty() {
        let reason = format!("CPUs {without} have no cpufreq, as in a virtual machine");
        desired.cannot(profile.cpu.require, wish.clone(), reason)?;
    }
    if !lacking.is_empty() {
        let reason = format!("CPUs {lacking} have other governors: {available}");
        desired.cannot(profile.cpu.require, wish, reason)?;
    }
    Ok(())
}

/// How the interfaces poll.
pub(super) fn plan_napi(profile: &Profile, host: &Host, desired: &mut Desired) -> Result<(), PlanError> {
    host.nics.iter().try_for_each(|on| plan_napi_of(&profile.napi, &on.nic, desired))
}

fn plan_napi_of(wishes: &NapiWish, nic: &Nic, desired: &mut Desired) -> Result<(), PlanError> {
    for (&file, &wanted) in &wishes.files {
        let key = format!("napi.{} = {}", file.name(), wishes.shown(file));
        match nic.napi.get(&file) {
            Some(_) => {
                let setting = Setting::Napi(nic.name.clone(), file);
                desired.set(setting, Value::Numbers(vec![i128::from(wanted)]), key);
            }
            None => {
                let path = file.path(&nic.name);
                let reason = format!("there is no {path}, which Linux {} brought", file.since());
                desired.cannot(wishes.require, format!("{key} of {}", nic.name), reason)?;
            }
        }
    }
    for (file, other, alone) in [
        (NapiFile::DeferHardIrqs, NapiFile::GroFlushTimeout, "the kernel defers no interrupt"),
        (
            NapiFile::GroFlushTimeout,
            NapiFile::DeferHardIrqs,
            "the kernel defers no interrupt and only holds longer what GRO merges; say napi_defer_hard_irqs \
             = 0 too if that is meant",
        ),
    ] {
        let asked = wishes.files.get(&file).is_some_and(|value| *value > 0);
        let of_host = nic.napi.get(&other).copied().unwrap_or_default();
        if asked && of_host == 0 && !wishes.files.contains_key(&other) {
            let setting = Setting::Napi(nic.name.clone(), file);
            desired.settings.remove(&setting);
            desired.reasons.remove(&setting);
            let wish = format!("napi.{} of {}", file.name(), nic.name);
            let reason = format!("without napi.{}, which is 0, {alone}", other.name());
            desired.cannot(wishes.require, wish, reason)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::*;
    use crate::host::Governor;
    use crate::host::fixture::veth_host;

    fn host() -> Host {
        let mut host = veth_host(4, 2);
        for cpu in 0..3 {
            let available = ["performance", "powersave"].map(str::to_owned).into_iter().collect();
            host.governors.insert(cpu, Governor { name: "powersave".into(), available });
        }
        host.nics[0].nic.napi.extend([(NapiFile::GroFlushTimeout, 0), (NapiFile::DeferHardIrqs, 0)]);
        host
    }

    /// The planned governors and polling, and what is skipped; or the refusal.
    fn planned(profile: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let profile = Profile::parse(&format!("irqbalance = \"coexist\"\n{profile}"), "p").unwrap();
        let desired = plan(&profile, &host()).map_err(|error| error.to_string())?;
        let ours = |setting: &&Setting| matches!(setting, Setting::Governor(_) | Setting::Napi(..));
        let ours = desired.settings.keys().filter(ours);
        let settings = ours.map(|setting| format!("{} {}", setting.path(), desired.settings[setting]));
        let skipped = desired.skipped.iter().map(|skipped| format!("{}: {}", skipped.wish, skipped.reason));
        Ok((settings.collect(), skipped.collect()))
    }

    #[test]
    fn a_governor_is_set_on_the_workers_cpus_that_have_it() {
        let path = |cpu| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor performance");
        let wish = "[cpu]\ngovernor = \"performance\"";
        assert_eq!(planned(&format!("cpus = \"1-2\"\n{wish}")), Ok((vec![path(1), path(2)], vec![])));
        let (set, skipped) = planned(&format!("cpus = \"2-3\"\n{wish}")).unwrap();
        assert_eq!(set, [path(2)]);
        assert_eq!(
            skipped,
            ["cpu.governor = \"performance\": CPUs 3 have no cpufreq, as in a virtual machine"]
        );
        let refusal = planned(&format!("{wish}\nrequire = true")).unwrap_err();
        assert!(refusal.contains("CPUs 3 have no cpufreq") && refusal.contains("require"), "{refusal}");
        let (set, skipped) = planned("cpus = \"0-1\"\n[cpu]\ngovernor = \"ondemand\"").unwrap();
        assert_eq!(set, [""; 0]);
        assert_eq!(
            skipped,
            ["cpu.governor = \"ondemand\": CPUs 0-1 have other governors: performance, powersave"]
        );
    }

    #[test]
    fn polling_is_set_where_the_kernel_has_the_file() {
        let (set, skipped) =
            planned("[napi]\ngro_flush_timeout = 20000\nnapi_defer_hard_irqs = 2\nthreaded = true").unwrap();
        assert_eq!(
            set,
            ["/sys/class/net/eth0/gro_flush_timeout 20000", "/sys/class/net/eth0/napi_defer_hard_irqs 2"]
        );
        assert_eq!(
            skipped,
            ["napi.threaded = true of eth0: there is no /sys/class/net/eth0/threaded, which Linux 5.12 \
                 brought"]
        );
        assert!(planned("[napi]\nthreaded = true\nrequire = true").unwrap_err().contains("requires it"));
        assert_eq!(planned("[napi]\nthreaded = \"keep\""), Ok((vec![], vec![])));
    }

    #[test]
    fn deferring_without_a_timeout_would_have_no_effect() {
        let (set, skipped) = planned("[napi]\nnapi_defer_hard_irqs = 2").unwrap();
        assert_eq!(set, [""; 0]);
        assert!(skipped[0].contains("without napi.gro_flush_timeout"), "{skipped:?}");
    }

    /// `napi_complete_done()` in `net/core/dev.c`: without a deferred interrupt the timer only holds what GRO
    /// has merged.
    #[test]
    fn a_timeout_alone_would_only_hold_packets_back() {
        let (set, skipped) = planned("[napi]\ngro_flush_timeout = 20000").unwrap();
        assert_eq!(set, [""; 0]);
        assert!(skipped[0].contains("without napi.napi_defer_hard_irqs, which is 0"), "{skipped:?}");
        let refused = planned("[napi]\ngro_flush_timeout = 20000\nrequire = true").unwrap_err();
        assert!(refused.contains("napi.gro_flush_timeout of eth0"), "{refused}");
        for other in ["gro_flush_timeout = 0", "gro_flush_timeout = 20000\nnapi_defer_hard_irqs = 0"] {
            assert_eq!(planned(&format!("[napi]\n{other}")).unwrap().1, [""; 0], "{other}");
        }
    }
}
