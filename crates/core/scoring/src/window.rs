//! The 60 s window: 60 whole seconds of event time that end with the second of the newest in-order reading.

/// What a window holds, in scaled integers turned to the quantity's unit.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "each field is what it is called")]
pub struct WindowStats {
    pub count: u64,
    pub mean: f64,
    /// Population variance.
    pub variance: f64,
    pub min: f64,
    pub max: f64,
    /// Least squares, per minute; `None` with fewer than two seconds.
    pub slope_per_min: Option<f64>,
    /// Its readings span at least 30 s: window statistics may be judged.
    pub judged: bool,
}

/// One quantity's window. A second with one reading costs 4 bytes; exact at any rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {}

impl Window {
    /// An empty window.
    pub fn new() -> Window {
        todo!()
    }

    /// Takes an in-order value and moves the window's end to its second.
    pub fn push(&mut self, timestamp_us: i64, value: i64) {
        let _ = (timestamp_us, value);
        todo!()
    }

    /// Takes an out-of-order value into its own second, if the window still covers it.
    pub fn insert(&mut self, timestamp_us: i64, value: i64) {
        let _ = (timestamp_us, value);
        todo!()
    }

    /// Moves the end to a time without a value (a reading whose value is missing or bad).
    pub fn advance(&mut self, timestamp_us: i64) {
        let _ = timestamp_us;
        todo!()
    }

    /// Statistics at a scale; `None` when empty.
    pub fn stats(&self, scale: u8) -> Option<WindowStats> {
        let _ = scale;
        todo!()
    }

    /// Appends a numbered-format-free encoding (the snapshot numbers the format).
    pub fn save(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }

    /// Reads [`Window::save`] and moves `bytes` past it; `None` on damaged bytes.
    pub fn load(bytes: &mut &[u8]) -> Option<Window> {
        let _ = bytes;
        todo!()
    }
}
