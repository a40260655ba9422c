//! What became of the jobs, and the summary of a run.

use std::time::Duration;

/// The slowest jobs that the summary lists.
const SLOWEST: usize = 10;

/// What became of a job.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) elapsed: Duration,
    pub(super) verdict: Verdict,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It ran and ended well.
    Passed,
    /// It did not run, and why.
    Skipped { reason: String },
    /// It did not end well; what it printed.
    Failed { output: String },
}

impl Verdict {
    /// The verdict on a job that exited with 0. A test program has to say that exactly one test ran, or why it did not:
    /// a name that no test has is a success for libtest.
    pub(super) fn of_success(output: &str, is_step: bool) -> Self {
        if is_step || output.contains("test result: ok. 1 passed;") {
            return Self::Passed;
        }
        let ignored = output.lines().find_map(|line| line.strip_prefix("test ")?.split_once(" ... ignored"));
        match ignored {
            Some((_, reason)) => Self::Skipped { reason: reason.trim_start_matches([',', ' ']).to_owned() },
            None => Self::Failed { output: format!("{output}\nit ran no test") },
        }
    }
}

/// A run.
pub(super) struct Summary {
    outcomes: Vec<Outcome>,
    elapsed: Duration,
}

impl Summary {
    /// The summary of outcomes after a run that took `elapsed`, with the build.
    pub(super) fn of(mut outcomes: Vec<Outcome>, elapsed: Duration) -> Self {
        outcomes.sort_by_key(|outcome| std::cmp::Reverse(outcome.elapsed));
        Self { outcomes, elapsed }
    }

    /// Whether a job failed.
    pub(super) fn has_failed(&self) -> bool {
        self.count(|verdict| matches!(verdict, Verdict::Failed { .. })) > 0
    }

    /// Prints the slowest jobs, those that were skipped, those that failed, and how many each were, on the last line.
    pub(super) fn print(&self) {
        println!("\nslowest:");
        for outcome in self.outcomes.iter().take(SLOWEST) {
            println!("  {:>6.1} s  {}", outcome.elapsed.as_secs_f64(), outcome.name);
        }
        for outcome in &self.outcomes {
            if let Verdict::Skipped { reason } = &outcome.verdict {
                println!("skipped: {}: {reason}", outcome.name);
            }
        }
        for outcome in &self.outcomes {
            if let Verdict::Failed { .. } = &outcome.verdict {
                println!("failed: {}", outcome.name);
            }
        }
        println!("{:.0} s in all, with the build", self.elapsed.as_secs_f64());
        let passed = self.count(|verdict| *verdict == Verdict::Passed);
        let failed = self.count(|verdict| matches!(verdict, Verdict::Failed { .. }));
        let skipped = self.count(|verdict| matches!(verdict, Verdict::Skipped { .. }));
        println!("{passed} passed, {failed} failed, {skipped} skipped");
    }

    fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| is(&outcome.verdict)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    #[test]
    fn a_program_that_ran_no_test_has_failed_unless_it_says_why() {
        let ran = "\nrunning 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored";
        assert_eq!(Verdict::of_success(ran, false), Verdict::Passed);
        let ignored =
            "running 1 test\ntest a ... ignored, needs a disk\n\ntest result: ok. 0 passed; 0 failed; 1 ignored";
        assert_eq!(Verdict::of_success(ignored, false), Verdict::Skipped { reason: "needs a disk".to_owned() });
        let nothing = "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out";
        assert!(matches!(Verdict::of_success(nothing, false), Verdict::Failed { .. }));
    }
}
