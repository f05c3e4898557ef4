//! What a behaviour is.

use std::{fmt, future::Future, pin::Pin};

use anyhow::Result;

use super::{feature::Feature, scene::Scene};

/// What a behaviour does.
pub(super) type Act = for<'a> fn(&'a mut Scene) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// One thing that every implementation must show.
#[derive(Clone, Copy)]
pub struct Behaviour {
    /// What it is about: the part of its name before the slash.
    pub area: &'static str,
    /// The rest of its name.
    pub name: &'static str,
    /// What the shim must do, in one sentence.
    pub sentence: &'static str,
    /// The ids of the sentences of the specification that it tests.
    pub must: &'static [&'static str],
    /// What the shim must be able to do for it.
    pub needs: &'static [Feature],
    pub(super) act: Act,
}

impl Behaviour {
    /// By which it is listed, filtered, and expected to fail.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.area, self.name)
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour")
            .field("area", &self.area)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// `behaviour!(AREA, "name", "One sentence.", ["ID"], [Feature], |scene| { ... })`
macro_rules! behaviour {
    ($area:expr, $name:literal, $sentence:literal, [$($must:literal),*], [$($needs:ident),*], |$scene:ident| $act:block) => {
        $crate::runner::behaviour::Behaviour {
            area: $area,
            name: $name,
            sentence: $sentence,
            must: &[$($must),*],
            needs: &[$($crate::runner::feature::Feature::$needs),*],
            act: |$scene| Box::pin(async move {
                $act
                Ok(())
            }),
        }
    };
}

pub(super) use behaviour;
