//! What the kernel reports about this process and its machine. Unknown values are zero or empty.

use rustix::fs::{Mode, OFlags};

/// The unit of processor time in `/proc`: a constant of the kernel's interface on every machine.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In the kernel.
    pub system_us: u64,
    /// In our code.
    pub user_us: u64,
}

/// The first bytes of a file in `/proc`, which are enough for every file read here.
fn read_proc(path: &str) -> Option<String> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = [0; 8192];
    let len = rustix::io::read(&file, &mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// Bytes of memory that the process occupies.
pub fn resident_bytes() -> u64 {
    read_proc("/proc/self/status").and_then(|text| resident_in(&text)).unwrap_or(0)
}

fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The processor time of the whole process, and of its first thread.
pub fn cpu_times() -> (CpuTime, CpuTime) {
    let of = |path: &str| read_proc(path).and_then(|text| cpu_time_in(&text)).unwrap_or_default();
    (of("/proc/self/stat"), of(&format!("/proc/self/task/{}/stat", std::process::id())))
}

/// Fields 14 and 15 of a `stat` line, counted after the name, which may itself contain blanks and brackets.
fn cpu_time_in(stat: &str) -> Option<CpuTime> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    let mut next_us = || Some(fields.next()?.parse::<u64>().ok()? * (1_000_000 / TICKS_PER_SECOND));
    Some(CpuTime { user_us: next_us()?, system_us: next_us()? })
}

/// Bytes of memory in the machine.
pub fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

/// Kernel, its version, and the machine's architecture.
pub fn system_name() -> String {
    let name = rustix::system::uname();
    let parts = [name.sysname(), name.release(), name.machine()];
    parts.map(|part| part.to_string_lossy().into_owned()).join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(resident_in("Name:\tx\nVmRSS:\t    1234 kB\nThreads:\t1\n"), Some(1234 * 1024));
        assert_eq!(resident_in("Name:\tx\n"), None);
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 75 0 0 20";
        assert_eq!(cpu_time_in(stat), Some(CpuTime { user_us: 2_500_000, system_us: 750_000 }));
        assert_eq!(cpu_time_in("12"), None);
        assert!(resident_bytes() > 0 && machine_memory() > resident_bytes());
        assert!(system_name().starts_with("Linux "));
    }
}
