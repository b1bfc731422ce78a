//! A look at each node from outside. Changes nothing.

use super::{ANSWER_MAX, AsyncConnectionConfig, Error, Redis, timeout};
use std::collections::BTreeMap;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `7.0.15`
    pub version: String,
    /// It takes no writes.
    pub replica: bool,
    /// Bytes that its data takes.
    pub used: u64,
    /// `maxmemory`; 0: without bound.
    pub max: u64,
    /// `maxmemory_policy`.
    pub policy: String,
    /// Of a cluster: whether all slots are served.
    pub cluster_ok: Option<bool>,
}

impl Redis {
    /// Asks every node how it is; each with its address, as it may be shown.
    pub async fn look(&self) -> Vec<(String, Result<Node, Error>)> {
        let mut nodes = Vec::new();
        for url in &self.urls {
            let node = timeout(ANSWER_MAX * 2, self.look_at(url)).await.unwrap_or(Err(Error::Silent));
            let place = self.client(url).map(|client| client.get_connection_info().addr().to_string());
            nodes.push((place.unwrap_or_default(), node));
        }
        nodes
    }

    async fn look_at(&self, url: &str) -> Result<Node, Error> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_MAX))
            .set_response_timeout(Some(ANSWER_MAX));
        let mut connection = self.client(url)?.get_multiplexed_async_connection_with_config(&config).await?;
        let text: String = redis::cmd("INFO").query_async(&mut connection).await?;
        let clustered = fields(&text).get("cluster_enabled") == Some(&"1");
        let cluster: Option<String> = match clustered {
            true => Some(redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await?),
            false => None,
        };
        Ok(node(&text, cluster.as_deref()))
    }
}

fn node(info: &str, cluster: Option<&str>) -> Node {
    let info = fields(info);
    let text = |name: &str| info.get(name).copied().unwrap_or_default();
    let number = |name: &str| text(name).parse().unwrap_or(0);
    Node {
        version: text("redis_version").to_owned(),
        replica: text("role") == "slave",
        used: number("used_memory"),
        max: number("maxmemory"),
        policy: text("maxmemory_policy").to_owned(),
        cluster_ok: cluster.map(|cluster| fields(cluster).get("cluster_state") == Some(&"ok")),
    }
}

/// The lines `name:value` of an answer.
fn fields(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.trim_end().split_once(':')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let info = "# Server\r\nredis_version:7.0.15\r\nused_memory:1000\r\nmaxmemory:4000\r\n\
                    maxmemory_policy:allkeys-lru\r\nrole:slave\r\n";
        let wanted = Node {
            version: "7.0.15".to_owned(),
            replica: true,
            used: 1000,
            max: 4000,
            policy: "allkeys-lru".to_owned(),
            cluster_ok: Some(false),
        };
        assert_eq!(node(info, Some("cluster_state:fail\r\n")), wanted);
    }
}
