//! Positions that a person moves, where a topic was cut or made anew.

use super::{Error, Which, pool};
use wire::READINGS_TOPIC;

/// Where who reads a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Place {
    pub topic: String,
    pub partition: u16,
    pub next_offset: i64,
}

/// Every position that a database has, by topic and partition.
///
/// # Errors
/// The database is not reachable or was not migrated.
pub async fn places(url: &str, which: Which) -> Result<Vec<Place>, Error> {
    let client = pool::connect(url, which).await?;
    let sql = "select topic, partition, next_offset from consumer_offset order by topic, partition";
    let mut places = Vec::new();
    for row in client.query(sql, &[]).await? {
        let partition: i32 = row.try_get(1)?;
        let Ok(partition) = u16::try_from(partition) else { continue };
        places.push(Place { topic: row.try_get(0)?, partition, next_offset: row.try_get(2)? });
    }
    Ok(places)
}

/// Moves positions to other offsets, all or none, and forgets what is said of offsets of the log that was: which catalogue
/// was in force where, and the state of detect.
///
/// # Errors
/// The database is not reachable, or [`Error::Moved`]: somebody went on from one of them; nothing is changed.
pub async fn resume(url: &str, which: Which, moves: &[(Place, i64)]) -> Result<(), Error> {
    let mut client = pool::connect(url, which).await?;
    let transaction = client.transaction().await?;
    for (Place { topic, partition, next_offset }, to) in moves {
        let number = i32::from(*partition);
        let sql =
            "update consumer_offset set next_offset = $4 where topic = $1 and partition = $2 and next_offset = $3";
        if transaction.execute(sql, &[topic, &number, next_offset, to]).await? != 1 {
            return Err(Error::Moved { topic: topic.clone(), partition: *partition, position: *next_offset });
        }
        if topic == READINGS_TOPIC {
            let sql = "delete from activation where topic = $1 and partition = $2";
            transaction.execute(sql, &[topic, &number]).await?;
            if which == Which::Ai {
                transaction.execute("delete from snapshot where partition = $1", &[&number]).await?;
            }
        }
    }
    Ok(transaction.commit().await?)
}
