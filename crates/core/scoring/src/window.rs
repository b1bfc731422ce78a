//! The 60 s window: 60 whole seconds of event time that end with the second of the newest in-order reading.
//!
//! A second with one reading is a 2-byte difference from a base (4 bytes where the values lie further apart); a second
//! with several is a bucket of exact sums. A push touches one second. Statistics are exact integer sums over at most 60
//! seconds, whatever the rate, so they cost the same at 0.1 Hz and at 1 kHz and cannot drift.

use std::collections::VecDeque;

/// Seconds that a window covers.
const SECONDS: usize = 60;
/// Every slot filled.
const FULL: u64 = (1 << SECONDS) - 1;
/// Seconds between the oldest and the newest reading from which on statistics are judged.
const JUDGED_SECONDS: i64 = 30;
/// Values that lie no further apart are kept as 2-byte differences, with room to move before the base must.
const NEAR_SPAN: u64 = 1 << 15;

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
    /// Least squares over (second, value), per minute; `None` with fewer than two seconds.
    pub slope_per_min: Option<f64>,
    /// Its readings span at least 30 s, from the second of the oldest to the second of the newest: window statistics
    /// may be judged.
    pub judged: bool,
}

/// One quantity's window. At 1 Hz it takes 168 bytes; exact at any rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// The last second covered; `i64::MIN` before the first.
    end: i64,
    /// Slots (second modulo 60) that hold the one reading of their second in `cells`; other cells are 0.
    present: u64,
    /// Cells are differences from it.
    base: i64,
    cells: Cells,
    /// Seconds that a cell cannot hold.
    crowded: Option<Box<Crowded>>,
}

/// One value a second, as differences from the window's base.
#[derive(Debug, Clone, PartialEq)]
enum Cells {
    None,
    Near(Box<[i16; SECONDS]>),
    Far(Box<[i32; SECONDS]>),
}

/// Seconds with several readings, or with one too far from the base; ascending, each inside the window.
#[derive(Debug, Clone, PartialEq, Default)]
struct Crowded(VecDeque<Bucket>);

/// Exact sums of one second.
#[derive(Debug, Clone, PartialEq)]
struct Bucket {
    second: i64,
    count: u64,
    sum: i128,
    /// Modulo 2^128: what is computed from it is again in range (see [`Sums::variance`]).
    squares: u128,
    min: i64,
    max: i64,
}

impl Default for Window {
    fn default() -> Window {
        Window::new()
    }
}

impl Window {
    /// An empty window.
    pub fn new() -> Window {
        Window { end: i64::MIN, present: 0, base: 0, cells: Cells::None, crowded: None }
    }

    /// Takes an in-order value and moves the window's end to its second.
    #[inline]
    pub fn push(&mut self, timestamp_us: i64, value: i64) {
        let second = second_of(timestamp_us);
        self.move_to(second);
        self.put(second, value);
    }

    /// Takes an out-of-order value into its own second, if the window still covers it.
    pub fn insert(&mut self, timestamp_us: i64, value: i64) {
        self.put(second_of(timestamp_us), value);
    }

    /// Moves the end to a time without a value (a reading whose value is missing or bad).
    pub fn advance(&mut self, timestamp_us: i64) {
        self.move_to(second_of(timestamp_us));
    }

    /// Statistics at a scale; `None` when empty.
    pub fn stats(&self, scale: u8) -> Option<WindowStats> {
        let sums = self.sums()?;
        let unit = 10f64.powi(i32::from(scale));
        Some(WindowStats {
            count: sums.count,
            mean: sums.total(self.base) as f64 / (sums.count as f64 * unit),
            variance: sums.variance() / (unit * unit),
            min: sums.min as f64 / unit,
            max: sums.max as f64 / unit,
            slope_per_min: sums.slope().map(|slope| slope * 60.0 / unit),
            judged: sums.newest - sums.oldest >= JUDGED_SECONDS,
        })
    }

    /// The bits of the cell that a time falls into, whatever they mean: reading them brings the cell near.
    pub fn peek(&self, timestamp_us: i64) -> i64 {
        let slot = slot_of(second_of(timestamp_us));
        match &self.cells {
            Cells::None => self.end,
            Cells::Near(cells) => i64::from(cells[slot]),
            Cells::Far(cells) => i64::from(cells[slot]),
        }
    }

    /// Bytes that the window takes, its heap included.
    pub fn bytes(&self) -> usize {
        let cells = match self.cells {
            Cells::None => 0,
            Cells::Near(_) => size_of::<[i16; SECONDS]>(),
            Cells::Far(_) => size_of::<[i32; SECONDS]>(),
        };
        let crowded = self
            .crowded
            .as_ref()
            .map_or(0, |crowded| size_of::<Crowded>() + crowded.0.capacity() * size_of::<Bucket>());
        size_of::<Window>() + cells + crowded
    }

    #[inline]
    fn move_to(&mut self, second: i64) {
        if second <= self.end {
            return;
        }
        let step = second.saturating_sub(self.end);
        if step >= SECONDS as i64 {
            self.forget_all();
        } else {
            for gone in self.end + 1..=second {
                self.take_cell(slot_of(gone));
            }
            if let Some(crowded) = &mut self.crowded {
                while crowded.0.front().is_some_and(|bucket| bucket.second <= second - SECONDS as i64) {
                    crowded.0.pop_front();
                }
                if crowded.0.is_empty() {
                    self.crowded = None;
                }
            }
        }
        self.end = second;
    }

    fn forget_all(&mut self) {
        if self.present != 0 {
            match &mut self.cells {
                Cells::None => {}
                Cells::Near(cells) => cells.fill(0),
                Cells::Far(cells) => cells.fill(0),
            }
        }
        self.present = 0;
        self.crowded = None;
    }

    /// Empties a slot: the value that it held.
    fn take_cell(&mut self, slot: usize) -> Option<i64> {
        if self.present & (1 << slot) == 0 {
            return None;
        }
        self.present &= !(1 << slot);
        let difference = match &mut self.cells {
            Cells::None => 0,
            Cells::Near(cells) => i64::from(std::mem::take(&mut cells[slot])),
            Cells::Far(cells) => i64::from(std::mem::take(&mut cells[slot])),
        };
        Some(self.base + difference)
    }

    /// Adds a value to a second; nothing where the window does not cover it.
    #[inline]
    fn put(&mut self, second: i64, value: i64) {
        if second > self.end || second <= self.end.saturating_sub(SECONDS as i64) {
            return;
        }
        if let Some(bucket) = self.crowded.as_mut().and_then(|crowded| crowded.find(second)) {
            bucket.add(value);
            return;
        }
        let slot = slot_of(second);
        if let Some(first) = self.take_cell(slot) {
            let mut bucket = Bucket::new(second, first);
            bucket.add(value);
            self.crowded.get_or_insert_default().insert(bucket);
        } else if self.store(slot, value) {
            self.present |= 1 << slot;
        } else {
            self.crowded.get_or_insert_default().insert(Bucket::new(second, value));
        }
    }

    /// Writes a value into an empty cell, making room for it where that can be; `false`: it lies too far off.
    fn store(&mut self, slot: usize, value: i64) -> bool {
        if self.present == 0 {
            // All cells are 0, so the base may move freely.
            self.base = value;
            if !matches!(self.cells, Cells::Near(_)) {
                self.cells = Cells::Near(Box::new([0; SECONDS]));
            }
            return true;
        }
        let Some(difference) = value.checked_sub(self.base) else { return false };
        match &mut self.cells {
            Cells::Near(cells) => {
                if let Ok(difference) = i16::try_from(difference) {
                    cells[slot] = difference;
                    return true;
                }
            }
            Cells::Far(cells) => {
                if let Ok(difference) = i32::try_from(difference) {
                    cells[slot] = difference;
                    return true;
                }
                return false;
            }
            Cells::None => return false,
        }
        self.widen(slot, value, difference)
    }

    /// Near cells cannot hold a value: moves their base if that helps, else makes them far.
    fn widen(&mut self, slot: usize, value: i64, difference: i64) -> bool {
        let Cells::Near(cells) = &mut self.cells else { return false };
        let held = |slot: usize| self.present & (1 << slot) != 0;
        let (mut low, mut high) = (difference, difference);
        for at in (0..SECONDS).filter(|&at| held(at)) {
            low = low.min(i64::from(cells[at]));
            high = high.max(i64::from(cells[at]));
        }
        if high.abs_diff(low) <= NEAR_SPAN {
            let shift = low + (high - low) / 2;
            for at in (0..SECONDS).filter(|&at| held(at)) {
                cells[at] = i16::try_from(i64::from(cells[at]) - shift).expect("half the span fits");
            }
            self.base += shift;
            cells[slot] = i16::try_from(value - self.base).expect("half the span fits");
            return true;
        }
        let Ok(difference) = i32::try_from(difference) else { return false };
        let mut far = Box::new([0i32; SECONDS]);
        for (to, from) in far.iter_mut().zip(cells.iter()) {
            *to = i32::from(*from);
        }
        far[slot] = difference;
        self.cells = Cells::Far(far);
        true
    }

    fn sums(&self) -> Option<Sums> {
        let mut sums = Sums::new();
        if self.present != 0 {
            match &self.cells {
                Cells::None => {}
                Cells::Near(cells) => sums.add_cells(self.end, self.base, self.present, cells),
                Cells::Far(cells) => sums.add_cells(self.end, self.base, self.present, cells),
            }
        }
        for bucket in self.crowded.iter().flat_map(|crowded| &crowded.0) {
            sums.add_bucket(self.end, self.base, bucket);
        }
        (sums.count > 0).then_some(sums)
    }

    /// Appends a numbered-format-free encoding (the snapshot numbers the format).
    pub fn save(&self, out: &mut Vec<u8>) {
        out.extend(self.end.to_le_bytes());
        out.extend(self.present.to_le_bytes());
        out.extend(self.base.to_le_bytes());
        let held = |slot: &usize| self.present & (1 << slot) != 0;
        match &self.cells {
            Cells::None => out.push(0),
            Cells::Near(cells) => {
                out.push(1);
                (0..SECONDS).filter(held).for_each(|slot| out.extend(cells[slot].to_le_bytes()));
            }
            Cells::Far(cells) => {
                out.push(2);
                (0..SECONDS).filter(held).for_each(|slot| out.extend(cells[slot].to_le_bytes()));
            }
        }
        let buckets = self.crowded.as_ref().map_or(0, |crowded| crowded.0.len());
        out.push(u8::try_from(buckets).expect("a bucket a second at most"));
        for bucket in self.crowded.iter().flat_map(|crowded| &crowded.0) {
            out.extend(bucket.second.to_le_bytes());
            out.extend(bucket.count.to_le_bytes());
            out.extend(bucket.sum.to_le_bytes());
            out.extend(bucket.squares.to_le_bytes());
            out.extend(bucket.min.to_le_bytes());
            out.extend(bucket.max.to_le_bytes());
        }
    }

    /// Reads [`Window::save`] and moves `bytes` past it; `None` on damaged bytes.
    pub fn load(bytes: &mut &[u8]) -> Option<Window> {
        let end = i64::from_le_bytes(take(bytes)?);
        let present = u64::from_le_bytes(take(bytes)?);
        let base = i64::from_le_bytes(take(bytes)?);
        let [kind] = take(bytes)?;
        // No event time lies beyond; the arithmetic on seconds relies on it.
        if !(second_of(i64::MIN)..=second_of(i64::MAX)).contains(&end) && (end, present) != (i64::MIN, 0) {
            return None;
        }
        let held = |slot: &usize| present & (1 << slot) != 0;
        let cells = match kind {
            0 if present == 0 => Cells::None,
            1 => {
                let mut cells = Box::new([0; SECONDS]);
                for slot in (0..SECONDS).filter(held) {
                    cells[slot] = i16::from_le_bytes(take(bytes)?);
                    base.checked_add(i64::from(cells[slot]))?;
                }
                Cells::Near(cells)
            }
            2 => {
                let mut cells = Box::new([0; SECONDS]);
                for slot in (0..SECONDS).filter(held) {
                    cells[slot] = i32::from_le_bytes(take(bytes)?);
                    base.checked_add(i64::from(cells[slot]))?;
                }
                Cells::Far(cells)
            }
            _ => return None,
        };
        let [buckets] = take(bytes)?;
        let mut crowded: Option<Box<Crowded>> = None;
        let mut before = end.saturating_sub(SECONDS as i64);
        for _ in 0..buckets {
            let bucket = Bucket {
                second: i64::from_le_bytes(take(bytes)?),
                count: u64::from_le_bytes(take(bytes)?),
                sum: i128::from_le_bytes(take(bytes)?),
                squares: u128::from_le_bytes(take(bytes)?),
                min: i64::from_le_bytes(take(bytes)?),
                max: i64::from_le_bytes(take(bytes)?),
            };
            let in_place = bucket.second > before && bucket.second <= end && !held(&slot_of(bucket.second));
            if !in_place || !bucket.is_possible() {
                return None;
            }
            before = bucket.second;
            crowded.get_or_insert_default().0.push_back(bucket);
        }
        (present & !FULL == 0).then_some(Window { end, present, base, cells, crowded })
    }
}

impl Crowded {
    fn find(&mut self, second: i64) -> Option<&mut Bucket> {
        // Readings mostly fall into the newest second.
        let newest = self.0.back()?.second;
        let at = match second.cmp(&newest) {
            std::cmp::Ordering::Greater => return None,
            std::cmp::Ordering::Equal => self.0.len() - 1,
            std::cmp::Ordering::Less => self.0.binary_search_by_key(&second, |bucket| bucket.second).ok()?,
        };
        self.0.get_mut(at)
    }

    fn insert(&mut self, bucket: Bucket) {
        let at = self.0.partition_point(|other| other.second < bucket.second);
        self.0.insert(at, bucket);
    }
}

impl Bucket {
    fn new(second: i64, value: i64) -> Bucket {
        let mut bucket = Bucket { second, count: 0, sum: 0, squares: 0, min: value, max: value };
        bucket.add(value);
        bucket
    }

    /// Its sums can be those of `count` values from `min` to `max`.
    fn is_possible(&self) -> bool {
        let count = i128::from(self.count & ((1 << 48) - 1));
        let range = i128::from(self.min) * count..=i128::from(self.max) * count;
        count > 0 && i128::from(self.count) == count && self.min <= self.max && range.contains(&self.sum)
    }

    fn add(&mut self, value: i64) {
        self.count += 1;
        self.sum += i128::from(value);
        self.squares = self.squares.wrapping_add((i128::from(value) * i128::from(value)) as u128);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }
}

/// Exact sums of a whole window. Values count from the window's base, seconds from the first one covered.
struct Sums {
    count: u64,
    values: i128,
    /// Modulo 2^128.
    squares: u128,
    seconds: i128,
    seconds_squared: i128,
    seconds_values: i128,
    min: i64,
    max: i64,
    oldest: i64,
    newest: i64,
}

impl Sums {
    fn new() -> Sums {
        Sums {
            count: 0,
            values: 0,
            squares: 0,
            seconds: 0,
            seconds_squared: 0,
            seconds_values: 0,
            min: i64::MAX,
            max: i64::MIN,
            oldest: i64::MAX,
            newest: i64::MIN,
        }
    }

    /// Adds every cell: empty ones are 0, so only minimum, maximum and the seconds must look at `present`.
    fn add_cells<T: Copy + Into<i64>>(&mut self, end: i64, base: i64, present: u64, cells: &[T; SECONDS]) {
        let last = slot_of(end);
        let (mut values, mut squares, mut slots_values, mut before) = (0i64, 0u128, 0i64, 0i64);
        for (slot, &cell) in cells.iter().enumerate() {
            let cell: i64 = cell.into();
            values += cell;
            squares += u128::from((cell * cell).unsigned_abs());
            slots_values += slot as i64 * cell;
            before += if slot > last { cell } else { 0 };
        }
        // Slots up to `last` are 59 - last further on than their number says, those behind it last + 1 less.
        let seconds_values = slots_values + (59 - last as i64) * values - 60 * before;
        let (mut seconds, mut seconds_squared, mut low, mut high) = (0i64, 0i64, i64::MAX, i64::MIN);
        let mut left = present;
        while left != 0 {
            let slot = left.trailing_zeros() as usize;
            left &= left - 1;
            let second = if slot <= last { slot + 59 - last } else { slot - last - 1 } as i64;
            seconds += second;
            seconds_squared += second * second;
            let cell: i64 = cells[slot].into();
            low = low.min(cell);
            high = high.max(cell);
        }
        let in_order = ((present >> (last + 1)) | (present << (59 - last))) & FULL;
        self.count += u64::from(present.count_ones());
        self.values += i128::from(values);
        self.squares = self.squares.wrapping_add(squares);
        self.seconds += i128::from(seconds);
        self.seconds_squared += i128::from(seconds_squared);
        self.seconds_values += i128::from(seconds_values);
        self.min = self.min.min(base + low);
        self.max = self.max.max(base + high);
        self.oldest = self.oldest.min(end - 59 + i64::from(in_order.trailing_zeros()));
        self.newest = self.newest.max(end + 4 - i64::from(in_order.leading_zeros()));
    }

    fn add_bucket(&mut self, end: i64, base: i64, bucket: &Bucket) {
        let (count, base) = (i128::from(bucket.count), i128::from(base));
        let second = i128::from(bucket.second - (end - 59));
        let values = bucket.sum - count * base;
        // sum of (v - base)^2, modulo 2^128
        let shift = base.wrapping_mul(count.wrapping_mul(base).wrapping_sub(bucket.sum.wrapping_mul(2)));
        self.squares = self.squares.wrapping_add(bucket.squares).wrapping_add(shift as u128);
        self.count += bucket.count;
        self.values += values;
        self.seconds += second * count;
        self.seconds_squared += second * second * count;
        self.seconds_values += second * values;
        self.min = self.min.min(bucket.min);
        self.max = self.max.max(bucket.max);
        self.oldest = self.oldest.min(bucket.second);
        self.newest = self.newest.max(bucket.second);
    }

    fn total(&self, base: i64) -> i128 {
        self.values + i128::from(self.count) * i128::from(base)
    }

    /// Population variance of the scaled integers. Sums are moved to the whole number below the mean first: the sum of
    /// squares is then at most count x span^2, so that arithmetic modulo 2^128 gives it exactly.
    fn variance(&self) -> f64 {
        let count = i128::from(self.count);
        let mean = self.values.div_euclid(count);
        let rest = self.values - mean * count;
        let shift = mean.wrapping_mul(count.wrapping_mul(mean).wrapping_sub(self.values.wrapping_mul(2)));
        let squares = self.squares.wrapping_add(shift as u128);
        let exact = i128::try_from(squares)
            .ok()
            .and_then(|squares| squares.checked_mul(count))
            .map(|scaled| scaled - rest * rest);
        match exact {
            Some(exact) => exact as f64 / (count as f64 * count as f64),
            None => (squares as f64 - (rest * rest) as f64 / count as f64) / count as f64,
        }
    }

    /// Least squares, scaled integers per second.
    fn slope(&self) -> Option<f64> {
        let count = i128::from(self.count);
        let spread = count * self.seconds_squared - self.seconds * self.seconds;
        let together = count.wrapping_mul(self.seconds_values).wrapping_sub(self.seconds.wrapping_mul(self.values));
        (spread > 0).then(|| together as f64 / spread as f64)
    }
}

fn second_of(timestamp_us: i64) -> i64 {
    timestamp_us.div_euclid(1_000_000)
}

#[inline]
fn slot_of(second: i64) -> usize {
    second.rem_euclid(SECONDS as i64) as usize
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every reading of the covered seconds, kept one by one.
    #[derive(Default)]
    struct Naive {
        end: Option<i64>,
        readings: Vec<(i64, i64)>,
    }

    impl Naive {
        fn push(&mut self, us: i64, value: i64) {
            self.advance(us);
            self.insert(us, value);
        }

        fn advance(&mut self, us: i64) {
            let second = us.div_euclid(1_000_000);
            let end = self.end.map_or(second, |end| end.max(second));
            self.end = Some(end);
            self.readings.retain(|&(at, _)| at > end - 60);
        }

        fn insert(&mut self, us: i64, value: i64) {
            let second = us.div_euclid(1_000_000);
            if self.end.is_some_and(|end| second <= end && second > end - 60) {
                self.readings.push((second, value));
            }
        }

        fn stats(&self, scale: u8) -> Option<WindowStats> {
            let unit = 10f64.powi(i32::from(scale));
            let count = self.readings.len() as i128;
            if count == 0 {
                return None;
            }
            let total: i128 = self.readings.iter().map(|r| i128::from(r.1)).sum();
            // count x value - total keeps the squares whole
            let squares: f64 = self.readings.iter().map(|r| ((count * i128::from(r.1) - total) as f64).powi(2)).sum();
            let seconds: i128 = self.readings.iter().map(|r| i128::from(r.0)).sum();
            let (mut together, mut spread) = (0i128, 0i128);
            for &(second, value) in &self.readings {
                let away = count * i128::from(second) - seconds;
                together += away * (count * i128::from(value) - total);
                spread += away * away;
            }
            let oldest = self.readings.iter().map(|r| r.0).min()?;
            let newest = self.readings.iter().map(|r| r.0).max()?;
            Some(WindowStats {
                count: count as u64,
                mean: total as f64 / (count as f64 * unit),
                variance: squares / (count as f64).powi(3) / (unit * unit),
                min: self.readings.iter().map(|r| r.1).min()? as f64 / unit,
                max: self.readings.iter().map(|r| r.1).max()? as f64 / unit,
                slope_per_min: (spread > 0).then(|| together as f64 / spread as f64 * 60.0 / unit),
                judged: newest - oldest >= 30,
            })
        }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-9)
    }

    fn check_same(window: &Window, naive: &Naive, scale: u8) {
        let (got, want) = (window.stats(scale), naive.stats(scale));
        let (Some(got), Some(want)) = (got, want) else {
            assert_eq!(got, want);
            return;
        };
        let same = got.count == want.count
            && near(got.mean, want.mean)
            && near(got.variance, want.variance)
            && got.min == want.min
            && got.max == want.max
            && got.judged == want.judged
            && match (got.slope_per_min, want.slope_per_min) {
                (Some(got), Some(want)) => (got - want).abs() <= 1e-9 * want.abs() + 1e-9,
                (got, want) => got == want,
            };
        assert!(same, "got {got:?}\nwant {want:?}\n{window:?}");
        let mut bytes = Vec::new();
        window.save(&mut bytes);
        let mut left = &bytes[..];
        assert_eq!(Window::load(&mut left).as_ref(), Some(window));
        assert!(left.is_empty());
    }

    /// Pushes readings every `step_us`, values from a fixed walk.
    fn check_rate(start_us: i64, step_us: i64, readings: u64, spread: i64) {
        let (mut window, mut naive) = (Window::new(), Naive::default());
        let mut state = 88_172_645_463_325_252u64;
        for nth in 0..readings {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = 31_000 + (state % (2 * spread as u64)) as i64 - spread;
            let us = start_us + nth as i64 * step_us;
            window.push(us, value);
            naive.push(us, value);
            if nth % (readings / 40).max(1) == 0 || nth + 1 == readings {
                check_same(&window, &naive, 2);
            }
        }
    }

    const START: i64 = 1_762_528_201_000_000;

    #[test]
    fn one_reading_a_second_is_exact() {
        check_rate(START, 1_000_000, 400, 200);
    }

    #[test]
    fn a_kilohertz_is_exact() {
        check_rate(START, 1_000, 100_000, 2_000);
    }

    #[test]
    fn a_tenth_of_a_hertz_is_exact() {
        check_rate(START, 10_000_000, 100, 200);
    }

    #[test]
    fn values_far_apart_are_exact() {
        check_rate(START, 900_000, 300, 1 << 40);
        check_rate(START, 1_000_000, 300, 1 << 30);
    }

    #[test]
    fn times_before_1970_are_times() {
        check_rate(-90_500_000, 700_000, 300, 200);
    }

    #[test]
    fn statistics_are_judged_from_thirty_seconds_on() {
        let mut window = Window::new();
        let mut judged = |us: i64| {
            window.push(us, 1);
            window.stats(0).is_some_and(|stats| stats.judged)
        };
        assert!(!judged(START));
        assert!(!judged(START + 29_900_000));
        assert!(judged(START + 30_000_000));
    }

    #[test]
    fn a_gap_empties_the_window() {
        let mut window = Window::new();
        (0..60).for_each(|second| window.push(START + second * 1_000_000, second));
        window.advance(START + 118_000_000);
        assert_eq!(window.stats(0).map(|stats| stats.count), Some(1));
        window.advance(START + 119_000_000);
        assert_eq!(window.stats(0), None);
        window.push(START + 120_000_000, 7);
        assert_eq!(window.stats(0).map(|stats| (stats.count, stats.mean, stats.slope_per_min)), Some((1, 7.0, None)));
    }

    #[test]
    fn a_value_before_the_window_is_not_taken() {
        let mut window = Window::new();
        window.insert(START, 1);
        assert_eq!(window.stats(0), None);
        window.push(START, 1);
        window.insert(START - 60_000_000, 1);
        window.insert(START + 1_000_000, 1);
        assert_eq!(window.stats(0).map(|stats| stats.count), Some(1));
    }

    #[test]
    fn a_second_with_one_reading_costs_two_bytes() {
        let mut window = Window::new();
        (0..600).for_each(|second| window.push(START + second * 1_000_000, 31_010 + second % 7));
        assert_eq!(window.bytes(), 168);
        window.push(START + 599_900_000, 31_010);
        assert!(window.bytes() > 168);
        (600..700).for_each(|second| window.push(START + second * 1_000_000, 31_010 + second % 7));
        assert_eq!(window.bytes(), 168);
    }

    #[test]
    fn the_widest_values_do_not_overflow() {
        let mut window = Window::new();
        for nth in 0..200 {
            window.push(START + nth * 300_000, if nth % 2 == 0 { i64::MAX } else { i64::MIN });
        }
        let stats = window.stats(9).expect("it holds readings");
        assert!(stats.mean.is_finite() && stats.min < 0.0 && stats.max > 0.0);
    }

    proptest! {
        #[test]
        fn any_order_and_any_gap_is_exact(
            start in -1_000_000_000i64..1_000_000_000,
            steps in prop::collection::vec((0u8..10, 0i64..4_000_000, -40_000i64..40_000, 0i64..7_000_000), 1..300),
            scale in 0u8..4,
        ) {
            let (mut window, mut naive) = (Window::new(), Naive::default());
            let mut now = start;
            for (kind, step, value, back) in steps {
                match kind {
                    0 => { window.insert(now - back, value); naive.insert(now - back, value); }
                    1 => { now += step; window.advance(now); naive.advance(now); }
                    2 => { now += step * 20; window.push(now, value); naive.push(now, value); }
                    3 => { now += step; window.push(now, value * 1_000_000); naive.push(now, value * 1_000_000); }
                    _ => { now += step; window.push(now, value); naive.push(now, value); }
                }
                check_same(&window, &naive, scale);
            }
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(window) = Window::load(&mut &bytes[..]) {
                let _ = window.stats(2);
            }
        }
    }
}
