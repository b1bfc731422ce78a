//! Which partition a machine lives on.

/// Kafka's own: (murmur2(key) & 0x7fffffff) modulo partitions, as Java clients partition a keyed record.
pub fn partition_of(machine: &str, partitions: u16) -> u16 {
    let positive = murmur2(machine.as_bytes()) & 0x7fff_ffff;
    (positive % u32::from(partitions.max(1))) as u16
}

/// MurmurHash2 as `org.apache.kafka.common.utils.Utils.murmur2` has it: 32 bits, its own seed.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("chunks of four")).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_kafka_does() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_below_their_number() {
        assert_eq!(partition_of("abc", 6), (479_470_107 % 6) as u16);
        assert_eq!(partition_of("21", 6), ((-973_932_308_i32 & 0x7fff_ffff) % 6) as u16);
        assert_eq!(partition_of("anything", 1), 0);
        assert_eq!(partition_of("anything", 0), 0);
    }

    #[test]
    fn machines_spread_over_all_partitions() {
        let mut count = [0_u32; 6];
        for machine in 0..6000 {
            count[usize::from(partition_of(&format!("machine-{machine:03}"), 6))] += 1;
        }
        assert!(count.iter().all(|count| (900..1100).contains(count)), "{count:?}");
    }
}
