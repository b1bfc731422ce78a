//! Classes of a user's own: `press`, with every kind of delay, level, spike and window, and `cell`, which has no law.

use catalog::{Catalogue, Class};
use std::sync::{Arc, OnceLock};

pub const PRESS: &str = r#"
[class]
id = "press"
name = { en = "Press", ko = "프레스" }
lateness = "5s"

[state]
running = { all = [{ quantity = "speed_spm", above = 5 }] }
setup = { all = [{ quantity = "speed_spm", above = 0 }] }
settle = "3s"

[[parameter]]
id = "force_rated"
default = 1000
unit = "kN"

[[channel]]
id = "force_kn"
unit = "kN"
scale = 1
range = [0, 2000]
plausible = [0, 1500]
max_step = 300
stuck_after = "1m"
adjust = "set"
name = { en = "Force", ko = "하중" }

[[channel]]
id = "speed_spm"
unit = "1/min"
scale = 0
range = [0, 200]
window = true
adjust = "set"
name = { en = "Speed", ko = "속도" }

[[channel]]
id = "oil_c"
unit = "degC"
scale = 2
range = [-40, 200]
optional = true
name = { en = "Oil temperature", ko = "유온" }

[[channel]]
id = "strokes"
unit = "1"
scale = 0
range = [0, 1000000]
kind = "counter"
adjust = "replace"
name = { en = "Strokes", ko = "타수" }

[[attribute]]
id = "die"
values = ["a", "b"]
default = "a"

[[derived]]
id = "force_rise"
unit = "kN/min"
expression = "slope60(force_kn)"

[[derived]]
id = "power_kw"
unit = "kW"
scale = 2
expression = "force_kn * speed_spm / 60 * 0.1"

[[derived]]
id = "power_spread"
unit = "kW"
expression = "std60(power_kw)"

[[law]]
id = "overload"
failure_type = "Overload"
off_delay = "20s"
deadband = 10
name = { en = "Overload", ko = "과부하" }
action = { en = "Lower the force.", ko = "하중을 낮추십시오." }

[[law.level]]
severity = "info"
all = [{ quantity = "force_kn", above = "0.9 * force_rated" }]
on_delay = "5s"

[[law.level]]
severity = "warning"
all = [{ quantity = "force_kn", above = { a = "force_rated", b = 1050 }, by = "die" }]
on_delay = "5s"

[[law.level]]
severity = "critical"
all = [{ quantity = "force_kn", above = 1200 }]

[[law]]
id = "ramp"
failure_type = "Ramp"
severity = "warning"
any = [{ quantity = "force_rise", above = 300 }, { quantity = "force_rise", below = -300, id = "falling" }]
on_delay = "3s"
off_delay = "10s"
name = { en = "Force ramp", ko = "하중 급변" }
action = { en = "Look at the feed.", ko = "이송을 확인하십시오." }

[[law]]
id = "unsteady"
failure_type = "Unsteady"
severity = "info"
all = [{ quantity = "power_spread", above = 20 }]
off_delay = "15s"
deadband = 1
caused_by = ["ramp"]

[[law]]
id = "oil"
failure_type = "Oil"
severity = "warning"
all = [{ quantity = "oil_c", above = 80, deadband = 2 }]
off_delay = "5s"
when = { all = [{ quantity = "speed_spm", at_least = 2 }] }
settle = "0s"
action = { en = "Cool the oil.", ko = "유온을 낮추십시오." }

[[law]]
id = "lubrication"
failure_type = "Lubrication"
severity = "warning"
all = [{ quantity = "strokes", at_least = 5000 }]
notice = true
action = { en = "Grease the guides.", ko = "가이드에 급유하십시오." }
"#;

pub const CELL: &str = r#"
[class]
id = "cell"
interval = "2s"
baseline = "3m"

[state]
running = { all = [{ quantity = "load_a", above = 1 }] }
settle = "5s"

[[channel]]
id = "load_a"
unit = "A"
scale = 2
range = [0, 1000]
adjust = "set"
name = { en = "Load", ko = "부하" }

[[channel]]
id = "temp_c"
unit = "degC"
scale = 2
range = [-50, 300]
stuck_after = "1m"
name = { en = "Temperature", ko = "온도" }

[[channel]]
id = "pressure_bar"
unit = "bar"
scale = 3
range = [0, 100]
optional = true
window = true
name = { en = "Pressure", ko = "압력" }
"#;

/// A class of one of these files, or of a changed one.
pub fn parse(text: &str) -> Class {
    Class::parse("test.toml", text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The built-in classes, `press` and `cell`.
pub fn catalogue() -> Arc<Catalogue> {
    static BASE: OnceLock<Arc<Catalogue>> = OnceLock::new();
    BASE.get_or_init(|| Arc::new(Catalogue::builtin().with_class(parse(PRESS)).with_class(parse(CELL)))).clone()
}
