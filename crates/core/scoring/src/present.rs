//! One reading as an explanation sees it: decimals, derived quantities, and what depends on what.

use crate::{
    Evidence, WindowStats,
    columns::{Needs, statistic},
    expression::{self, Names},
};
use catalog::{Quantity, Statistic};
use wire::Quality;

/// The values of the reading; NaN where bad, missing or not judged.
pub(crate) struct Present {
    pub(crate) channels: Vec<f64>,
    pub(crate) derived: Vec<f64>,
    pub(crate) needs: Needs,
}

impl Present {
    pub(crate) fn of(evidence: &Evidence<'_>) -> Present {
        let class = evidence.class;
        let decimal = |channel: usize| match Quality::of(evidence.quality, channel) {
            Quality::Bad | Quality::Missing => f64::NAN,
            Quality::Good | Quality::Uncertain => decimal(evidence.values[channel], class.channels[channel].scale),
        };
        let mut present = Present {
            channels: (0..class.channels.len()).map(decimal).collect(),
            derived: Vec::new(),
            needs: Needs::of(class),
        };
        for derived in &class.derived {
            let names = PresentNames {
                present: &present,
                parameters: &evidence.settings.parameters,
                windows: evidence.windows,
            };
            let value = expression::finite(expression::evaluate(&derived.expression, &names));
            present.derived.push(value);
        }
        present
    }

    pub(crate) fn value(&self, quantity: Quantity) -> f64 {
        match quantity {
            Quantity::Channel(at) => self.channels[at],
            Quantity::Derived(at) => self.derived[at],
        }
    }
}

/// A scaled integer as the double of its decimal text.
pub(crate) fn decimal(value: i64, scale: u8) -> f64 {
    value as f64 / 10f64.powi(i32::from(scale))
}

struct PresentNames<'a> {
    present: &'a Present,
    parameters: &'a [f64],
    windows: &'a dyn Fn(Quantity) -> Option<WindowStats>,
}

impl Names for PresentNames<'_> {
    fn parameter(&self, at: usize) -> f64 {
        self.parameters[at]
    }

    fn quantity(&self, quantity: Quantity) -> f64 {
        self.present.value(quantity)
    }

    fn window(&self, which: Statistic, quantity: Quantity) -> f64 {
        statistic((self.windows)(quantity), which)
    }
}
