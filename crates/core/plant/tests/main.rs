//! The simulated plant against the data set that it imitates and the class files whose values it gives.

mod jobs;
mod readings;
