//! Names of machines.

use std::sync::Arc;

/// The name of a machine: 1 to 50 characters, no NUL. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(Arc<str>);

/// Why a text is no machine id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It has no character.
    #[error("machine_id is empty")]
    Empty,
    /// It has more than 50 characters.
    #[error("machine_id has {0} characters, 50 are allowed")]
    Long(usize),
    /// It holds U+0000.
    #[error("machine_id holds a NUL character")]
    Nul,
}

impl TryFrom<&str> for MachineId {
    type Error = IdError;

    fn try_from(name: &str) -> Result<Self, IdError> {
        if name.is_empty() {
            return Err(IdError::Empty);
        }
        // 50 characters are at least 50 bytes, so short names need no count.
        if name.len() > 50 {
            let characters = name.chars().count();
            if characters > 50 {
                return Err(IdError::Long(characters));
            }
        }
        if name.as_bytes().contains(&0) {
            return Err(IdError::Nul);
        }
        Ok(MachineId(name.into()))
    }
}

impl MachineId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for MachineId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for MachineId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for MachineId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Debug for MachineId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&*self.0, f)
    }
}
