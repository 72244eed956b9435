//! Medians of all runs as an aligned table, and as JSON for whoever compares.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::measure::{Cost, median};

/// What all ratios refer to.
pub const CEILING: &str = "ceiling";

/// What was measured with one number of routes.
#[derive(Debug, Default)]
pub struct Report {
    routes: usize,
    rows: Vec<((&'static str, &'static str), Vec<Cost>)>,
    figures: Vec<(String, Vec<f64>)>,
}

impl Report {
    /// Of measurements with so many routes.
    pub fn new(routes: usize) -> Self {
        Self {
            routes,
            ..Self::default()
        }
    }

    /// A step of somebody, once a run.
    pub fn cost(&mut self, who: &'static str, step: &'static str, cost: Cost) {
        match self.rows.iter_mut().find(|(key, _)| *key == (who, step)) {
            Some((_, costs)) => costs.push(cost),
            None => self.rows.push(((who, step), vec![cost])),
        }
    }

    /// Anything else, once a run.
    pub fn figure(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        match self.figures.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.figures.push((name, vec![value])),
        }
    }

    fn median_of(&self, who: &str, step: &str) -> Option<(Duration, Duration)> {
        let (_, costs) = self.rows.iter().find(|(key, _)| *key == (who, step))?;
        let mut walls: Vec<_> = costs.iter().map(|cost| cost.wall).collect();
        let mut cpus: Vec<_> = costs.iter().map(Cost::cpu_total).collect();
        Some((median(&mut walls), median(&mut cpus)))
    }

    pub fn print(&self) {
        println!(
            "\n{} routes\n{:<22} {:<8} {:>4} {:>8} {:>10} {:>7} {:>12} {:>7} {:>9}   CPU BY THREAD, us/route",
            self.routes,
            "WHO",
            "STEP",
            "RUNS",
            "WALL s",
            "ROUTES/s",
            "SPEED",
            "CPU us/route",
            "CPU",
            "WAITED ms"
        );
        for ((who, step), costs) in &self.rows {
            let Some((wall, cpu)) = self.median_of(who, step) else {
                continue;
            };
            let (speed, dear) = match self.median_of(CEILING, step) {
                Some((w, c)) => (
                    format!("{:.2}x", w.as_secs_f64() / wall.as_secs_f64()),
                    format!("{:.2}x", cpu.as_secs_f64() / c.as_secs_f64()),
                ),
                None => (String::new(), String::new()),
            };
            let threads: Vec<_> = threads(costs)
                .into_iter()
                .map(|(name, cpu)| (name, self.micros(cpu)))
                .filter(|(_, us)| *us >= 0.01)
                .map(|(name, us)| format!("{name} {us:.2}"))
                .collect();
            println!(
                "{who:<22} {step:<8} {:>4} {:>8.3} {:>10.0} {speed:>7} {:>12.2} {dear:>7} {:>9.0}   {}",
                costs.len(),
                wall.as_secs_f64(),
                self.routes as f64 / wall.as_secs_f64(),
                self.micros(cpu),
                waited(costs).as_secs_f64() * 1e3,
                threads.join(", ")
            );
        }
        println!();
        for (name, values) in &self.figures {
            println!("{name:<64} {:>12.2}", median_f64(values));
        }
    }

    pub fn json(&self) -> Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .filter_map(|((who, step), costs)| {
                let (wall, cpu) = self.median_of(who, step)?;
                let threads: Map<_, _> = threads(costs)
                    .into_iter()
                    .map(|(name, cpu)| (name, json!(self.micros(cpu))))
                    .collect();
                Some(json!({
                    "who": who, "step": step, "runs": costs.len(), "wall_s": wall.as_secs_f64(),
                    "cpu_us_a_route": self.micros(cpu), "threads_us_a_route": threads,
                    "waited_s": waited(costs).as_secs_f64(),
                }))
            })
            .collect();
        let figures: Map<_, _> = self
            .figures
            .iter()
            .map(|(name, values)| (name.clone(), json!(median_f64(values))))
            .collect();
        json!({ "routes": self.routes, "steps": rows, "figures": figures })
    }

    fn micros(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.routes as f64
    }
}

fn threads(costs: &[Cost]) -> BTreeMap<String, Duration> {
    let mut all: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for (name, cpu) in costs.iter().flat_map(|cost| &cost.cpu) {
        all.entry(name.clone()).or_default().push(*cpu);
    }
    let medians = all.into_iter();
    medians
        .map(|(name, mut cpu)| (name, median(&mut cpu)))
        .collect()
}

fn waited(costs: &[Cost]) -> Duration {
    let mut waits: Vec<_> = costs.iter().map(|cost| cost.waited).collect();
    median(&mut waits)
}

fn median_f64(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
