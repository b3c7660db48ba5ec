//! Searches by halving. What is tried is the caller's.

/// The maximum number of attempts of one search.
const ATTEMPTS: usize = 40;

/// The outcome of an attempt at a rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// Frames per second that were really offered.
    pub(super) fps: f64,
    /// `true` if no more of them were lost than may be.
    pub(super) passes: bool,
}

/// Looks for the highest rate that passes, between 0 and `first`, or as much as can be sent. Stops as
/// soon as the interval between a rate that passes and one that does not is `resolution` of the latter, or
/// one frame per second.
/// Returns whether an attempt failed, and so something other than `first` limits the rate.
///
/// # Errors
/// The first error of an attempt.
pub(super) fn highest_rate<E>(
    first: Option<f64>,
    resolution: f64,
    mut attempt: impl FnMut(Option<f64>) -> Result<Attempt, E>,
) -> Result<bool, E> {
    let (mut low, mut high, mut rate) = (0.0, None, first);
    for _ in 0..ATTEMPTS {
        let Attempt { fps, passes } = attempt(rate)?;
        let target = rate.unwrap_or(fps);
        if passes {
            // What was offered may be less, but with the target the interval is halved in any case.
            low = target;
        } else {
            // If the sender did not keep up, even the rate that was really offered was too high.
            high = Some(target.min(fps).max(low));
        }
        let Some(high) = high.filter(|high| high - low > f64::max(resolution * high, 1.0)) else { break };
        rate = Some((low + high) / 2.0);
    }
    Ok(high.is_some())
}

/// Looks for the longest burst that passes, below `most` frames, which did not. Stops as soon as the
/// interval between a burst that passes and one that does not is one frame, or `resolution` of the
/// latter.
///
/// # Errors
/// The first error of an attempt.
pub(super) fn longest_burst<E>(
    most: u64,
    resolution: f64,
    mut attempt: impl FnMut(u64) -> Result<bool, E>,
) -> Result<u64, E> {
    let (mut low, mut high) = (0, most);
    while high - low > u64::max(1, (resolution * high as f64) as u64) {
        let middle = low + (high - low) / 2;
        if attempt(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Searches a device that carries `limit` frames a second, with a sender that offers `fastest`.
    /// Returns the best rate that passed, the number of attempts, and whether one failed.
    fn search(limit: f64, fastest: f64, first: Option<f64>, resolution: f64) -> (f64, usize, bool) {
        let (mut best, mut attempts) = (0.0, 0);
        let attempt = |rate: Option<f64>| {
            let fps = rate.unwrap_or(fastest).min(fastest);
            attempts += 1;
            if fps <= limit {
                best = f64::max(best, fps);
            }
            Ok::<_, Infallible>(Attempt { fps, passes: fps <= limit })
        };
        let Ok(has_failed) = highest_rate(first, resolution, attempt);
        (best, attempts, has_failed)
    }

    #[test]
    fn limit_of_a_device_is_found() {
        for limit in [15.5, 812.0, 123_456.0, 4.9e6] {
            for (first, resolution) in [(None, 0.01), (Some(1e7), 0.01), (Some(1e7), 0.001)] {
                let (best, attempts, has_failed) = search(limit, 5e6, first, resolution);
                let least = (limit * (1.0 - 1.01 * resolution)).min(limit - 1.0);
                assert!((least..=limit).contains(&best), "{limit}: {best}");
                assert!(has_failed && attempts <= 25, "{limit}: {attempts}");
            }
        }
    }

    #[test]
    fn sender_or_the_maximum_may_be_the_limit() {
        assert_eq!(search(1e7, 5e6, None, 0.01), (5e6, 1, false));
        assert_eq!(search(1e7, 5e6, Some(1e6), 0.01), (1e6, 1, false));
        let (best, attempts, has_failed) = search(0.0, 5e6, None, 0.01);
        assert_eq!((best, has_failed), (0.0, true));
        assert!(attempts <= ATTEMPTS);
    }

    #[test]
    fn longest_burst_that_a_buffer_takes_is_found() {
        for buffer in [0, 1, 77, 4096, 999_999] {
            let mut attempts = 0;
            let attempt = |frames| {
                attempts += 1;
                Ok::<_, Infallible>(frames <= buffer)
            };
            let Ok(found) = longest_burst(1_000_000, 0.0, attempt);
            assert_eq!(found, buffer);
            assert!(attempts <= 20, "{attempts}");
            let Ok(about) = longest_burst(1_000_000, 0.01, |frames| Ok::<_, Infallible>(frames <= buffer));
            assert!(about <= buffer && about as f64 >= buffer as f64 * 0.98 - 1.0, "{buffer}: {about}");
        }
    }

    /// Makes attempts of which the third is an error.
    fn third_fails() -> impl FnMut() -> Result<bool, &'static str> {
        let mut left = 3;
        move || {
            left -= 1;
            if left == 0 { Err("no device") } else { Ok(false) }
        }
    }

    #[test]
    fn errors_end_a_search() {
        let mut attempt = third_fails();
        assert_eq!(longest_burst(1000, 0.0, |_| attempt()), Err("no device"));
        let mut attempt = third_fails();
        let attempt = |_| attempt().map(|passes| Attempt { fps: 1e6, passes });
        assert_eq!(highest_rate(None, 0.01, attempt), Err("no device"));
    }
}
