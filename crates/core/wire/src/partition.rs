//! Which partition a machine lives on.

/// Kafka's own: (murmur2(key) & 0x7fffffff) modulo partitions, as Java clients partition a keyed record.
pub fn partition_of(machine: &str, partitions: u16) -> u16 {
    let _ = (machine, partitions);
    todo!()
}
