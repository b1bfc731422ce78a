//! A database of a test's own in a real PostgreSQL, which goes with the test.

use super::{Which, pool};
use std::future::Future;

/// Named at random.
pub(crate) struct Scratch {
    server: String,
    name: String,
}

impl Scratch {
    /// Makes one where the environment names a server; otherwise says so (and fails where it must be there).
    pub(crate) async fn new(which: Which) -> Option<Scratch> {
        let variable = format!("MILLWRIGHT_TEST_POSTGRES_{}", which.as_str().to_uppercase());
        let Ok(server) = std::env::var(&variable) else {
            assert!(std::env::var_os("MILLWRIGHT_TEST_REQUIRED").is_none(), "{variable} is not set");
            println!("skipped: {variable} is not set (./dev services start)");
            return None;
        };
        let name = format!("mw_test_{}", uuid::Uuid::now_v7().simple());
        pool::connect(&server, which).await.unwrap().batch_execute(&format!("create database {name}")).await.unwrap();
        Some(Scratch { server, name })
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        let (rest, query) =
            self.server.split_once('?').map_or((&*self.server, None), |(rest, query)| (rest, Some(query)));
        let (server, _) = rest.rsplit_once('/').expect("the address ends with a database");
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{server}/{}{query}", self.name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (server, sql) = (self.server.clone(), format!("drop database {} with (force)", self.name));
        // A runtime of its own: the test's may be ending.
        let dropped = std::thread::spawn(move || {
            block_on(async move {
                pool::connect(&server, Which::Main).await?.batch_execute(&sql).await.map_err(super::Error::from)
            })
        });
        if let Ok(Err(error)) = dropped.join() {
            println!("{} stays: {error:?}", self.name);
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
