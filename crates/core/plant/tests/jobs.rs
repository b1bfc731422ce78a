//! One reading a job, against the figures of the AI4I 2020 file: 100 files of 10,000 jobs each.

use plant::{Job, Jobs, Mode};

const FILES: u64 = 100;
const JOBS: usize = 10_000;

fn power(job: &Job) -> f64 {
    job.torque_nm * job.rpm * 2.0 * std::f64::consts::PI / 60.0
}

fn strain(job: &Job) -> f64 {
    job.torque_nm * job.wear_min as f64
}

fn overstrains(job: &Job) -> bool {
    strain(job) > [11_000.0, 12_000.0, 13_000.0][usize::from(job.product_type)]
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn sd(values: &[f64]) -> f64 {
    let mean = mean(values);
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt()
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let (mx, my) = (mean(x), mean(y));
    let products: f64 = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum();
    products / (x.len() - 1) as f64 / (sd(x) * sd(y))
}

fn skew(values: &[f64]) -> f64 {
    let (mean, sd) = (mean(values), sd(values));
    values.iter().map(|value| ((value - mean) / sd).powi(3)).sum::<f64>() / values.len() as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn file(machine: u64) -> Vec<Job> {
    let mut jobs = Jobs::new(2020, machine, Mode::Ai4i);
    (0..JOBS).map(|_| jobs.next_job()).collect()
}

/// Holds that the median of a figure over all files lies in the 95 % band of the description, and that most files do.
#[track_caller]
fn check(what: &str, files: &[Vec<Job>], (low, high): (f64, f64), of: impl Fn(&[Job]) -> f64) {
    let figures: Vec<f64> = files.iter().map(|file| of(file)).collect();
    let inside = figures.iter().filter(|figure| (low..=high).contains(*figure)).count();
    let middle = median(figures);
    println!("{what}: median {middle:.3} in {low}..{high}, {inside} of {} files inside", files.len());
    assert!((low..=high).contains(&middle), "{what}: the median {middle} lies outside {low}..{high}");
    assert!(inside * 10 >= files.len() * 8, "{what}: only {inside} of {} files lie in {low}..{high}", files.len());
}

#[test]
fn moments_and_failure_rates_are_those_of_the_data_set() {
    let files: Vec<Vec<Job>> = (0..FILES).map(file).collect();
    let column = |file: &[Job], of: fn(&Job) -> f64| file.iter().map(of).collect::<Vec<f64>>();
    let count = |file: &[Job], of: fn(&Job) -> bool| file.iter().filter(|job| of(job)).count() as f64;

    // The description gives no band for the torque: 3.3 standard errors of a normal(40, 10) about the file's figures.
    check("torque mean", &files, (39.65, 40.35), |file| mean(&column(file, |job| job.torque_nm)));
    check("torque sd", &files, (9.75, 10.25), |file| sd(&column(file, |job| job.torque_nm)));
    check("rpm mean", &files, (1536.0, 1544.0), |file| mean(&column(file, |job| job.rpm)));
    check("rpm sd", &files, (175.3, 186.2), |file| sd(&column(file, |job| job.rpm)));
    check("rpm skew", &files, (1.92, 2.19), |file| skew(&column(file, |job| job.rpm)));
    check("corr(rpm, torque)", &files, (-0.879, -0.869), |file| {
        correlation(&column(file, |job| job.rpm), &column(file, |job| job.torque_nm))
    });
    check("power mean", &files, (6260.0, 6311.0), |file| mean(&column(file, power)));
    check("power sd", &files, (1053.0, 1081.0), |file| sd(&column(file, power)));
    check("strain mean", &files, (4250.0, 4350.0), |file| mean(&column(file, strain)));
    check("rpm < 1380", &files, (1270.0, 1400.0), |file| count(file, |job| job.rpm < 1380.0));
    check("tool changes", &files, (117.5, 120.0), |file| count(file, |job| job.last_of_tool));
    check("TWF", &files, (35.0, 57.0), |file| count(file, |job| job.tool_failed));
    check("PWF", &files, (85.0, 119.0), |file| count(file, |job| !(3500.0..=9000.0).contains(&power(job))));
    check("PWF low", &files, (30.0, 55.0), |file| count(file, |job| power(job) < 3500.0));
    check("PWF high", &files, (48.0, 74.0), |file| count(file, |job| power(job) > 9000.0));
    check("OSF", &files, (75.0, 114.5), |file| count(file, overstrains));

    // The temperatures are one slow walk: over all files, loosely.
    let all: Vec<Job> = files.concat();
    let loosely = |what: &str, value: f64, low: f64, high: f64| {
        assert!((low..=high).contains(&value), "{what}: {value} outside {low}..{high}");
    };
    let dt = column(&all, |job| job.process_k - job.air_k);
    loosely("air mean", mean(&column(&all, |job| job.air_k)), 299.7, 300.3);
    loosely("air sd", sd(&column(&all, |job| job.air_k)), 1.7, 2.2);
    loosely("dT mean", mean(&dt), 9.85, 10.15);
    loosely("dT sd", sd(&dt), 0.85, 1.1);
    let heat = count(&all, |job| job.process_k - job.air_k < 8.6 && job.rpm < 1380.0) / FILES as f64;
    loosely("HDF a file", heat, 50.0, 170.0);
}

#[test]
fn types_are_drawn_60_30_10_and_wear_grows_by_2_3_5_until_the_tool_is_changed() {
    let mut types = [0_u32; 3];
    let mut lasts = Vec::new();
    for machine in 0..20 {
        let jobs = file(machine);
        for pair in jobs.windows(2) {
            let [job, next] = pair else { unreachable!("windows of two") };
            types[usize::from(job.product_type)] += 1;
            assert_eq!(job.minutes(), [2, 3, 5][usize::from(job.product_type)]);
            let expected = if job.last_of_tool { 0 } else { job.wear_min + job.minutes() };
            assert_eq!(next.wear_min, expected, "{job:?}");
            if job.last_of_tool {
                lasts.push(job.wear_min as f64);
            }
        }
    }
    let all = f64::from(types.iter().sum::<u32>());
    for (count, share) in types.iter().zip([0.6, 0.3, 0.1]) {
        assert!((f64::from(*count) / all - share).abs() < 0.005, "{types:?}");
    }
    // The file: last wear 198 to 253, mean 215.7, sd 10.6.
    assert!((mean(&lasts) - 215.7).abs() < 1.5 && (sd(&lasts) - 10.6).abs() < 1.5, "{} {}", mean(&lasts), sd(&lasts));
    assert!(lasts.iter().all(|wear| (195.0..270.0).contains(wear)));
}

#[test]
fn a_healthy_plant_breaks_no_law_and_changes_tools_before_the_notice() {
    for machine in 0..20 {
        let mut jobs = Jobs::new(7, machine, Mode::Healthy);
        for _ in 0..JOBS {
            let job = jobs.next_job();
            let worst = job.torque_nm * (job.wear_min + job.minutes()) as f64;
            let limit = [11_000.0, 12_000.0, 13_000.0][usize::from(job.product_type)];
            assert!((3500.0..=9000.0).contains(&power(&job)) && worst <= limit, "{job:?}");
            assert!(job.process_k - job.air_k >= 8.6 && job.wear_min + job.minutes() < 200, "{job:?}");
        }
    }
}
