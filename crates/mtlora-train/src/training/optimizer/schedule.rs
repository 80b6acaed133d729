/// A learning rate that rises linearly from zero during the warm-up steps and then falls linearly to zero at the end,
/// as transformers' `get_linear_schedule_with_warmup` does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmupLinear {
    peak: f64,
    warmup_steps: usize,
    total_steps: usize,
}

impl WarmupLinear {
    /// A schedule over `total_steps` steps with the highest rate `peak`.
    pub fn new(peak: f64, warmup_steps: usize, total_steps: usize) -> Self {
        Self {
            peak,
            warmup_steps,
            total_steps,
        }
    }

    /// A schedule whose warm-up is this share of all steps, rounded up as in transformers' `Trainer`.
    pub fn with_ratio(peak: f64, warmup_ratio: f64, total_steps: usize) -> Self {
        let warmup_steps = (warmup_ratio * total_steps as f64).ceil() as usize;
        Self::new(peak, warmup_steps, total_steps)
    }

    /// The learning rate of a step, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let falling = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        self.peak * self.total_steps.saturating_sub(step) as f64 / falling as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbs_and_falls_in_straight_lines() {
        let schedule = WarmupLinear::new(1.0, 2, 6);
        let rates: Vec<f64> = (0..8).map(|step| schedule.rate(step)).collect();
        assert_eq!(rates, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
    }

    #[test]
    fn a_part_of_a_step_is_one() {
        let schedule = |steps| WarmupLinear::with_ratio(1.0, 0.25, steps);
        assert_eq!(schedule(8), WarmupLinear::new(1.0, 2, 8));
        assert_eq!(schedule(9), WarmupLinear::new(1.0, 3, 9));
        assert_eq!(schedule(0).rate(0), 0.0);
    }

    #[test]
    fn no_warm_up_starts_at_the_peak() {
        assert_eq!(WarmupLinear::new(0.3, 0, 10).rate(0), 0.3);
    }
}
