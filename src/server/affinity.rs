//! `server-cpulist`: the cores that the process runs on.

use rustix::thread::{CpuSet, sched_setaffinity};
use std::io;

/// Has this thread, and those that it will start, run on the cores of a list as `0-3,8` or `0-15:2` only.
///
/// # Errors
/// The list makes no sense, or the machine has none of these cores.
pub fn run_on(list: &str) -> io::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let wanted = cores(list).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("'{list}' is no list of cores, as 0-3,8 or 0-15:2"))
    })?;
    let mut set = CpuSet::new();
    wanted.into_iter().for_each(|core| set.set(core));
    Ok(sched_setaffinity(None, &set)?)
}

/// The numbers of a list of numbers, ranges, and ranges with a step.
fn cores(list: &str) -> Option<Vec<usize>> {
    let number = |text: &str| text.trim().parse().ok().filter(|core| *core < CpuSet::MAX_CPU);
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (range, step) = part.split_once(':').map_or((part, Some(1)), |(range, step)| (range, number(step)));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last, step) = (number(first)?, number(last)?, step.filter(|step| *step > 0)?);
        if first > last {
            return None;
        }
        cores.extend((first..=last).step_by(step));
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        assert_eq!(cores("0"), Some(vec![0]));
        assert_eq!(cores("0-3, 8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cores("0-7:3,1"), Some(vec![0, 3, 6, 1]));
        for wrong in ["", "a", "3-1", "0-3:0", "0,", "-1", "99999"] {
            assert_eq!(cores(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_affinity_is_inherited_by_new_threads() {
        let own = rustix::thread::sched_getaffinity(None).expect("the kernel knows");
        let first = (0..CpuSet::MAX_CPU).find(|core| own.is_set(*core)).expect("a core");
        let inherited = std::thread::spawn(move || {
            run_on(&first.to_string()).expect("a core of ours");
            std::thread::spawn(|| std::thread::available_parallelism().map_or(0, usize::from)).join()
        });
        assert_eq!(inherited.join().expect("no panic").expect("no panic"), 1);
        assert!(run_on("nonsense").is_err());
        run_on("").expect("no list, nothing to do");
    }
}
