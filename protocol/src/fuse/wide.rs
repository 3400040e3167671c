//! The widest vectors that a processor has, whatever the build was made for.

/// Does `work`, compiled for this processor's own vector instructions. What `work` calls is compiled for them where it
/// is inlined: `#[inline(always)]` all the way down. For integers only, whose results don't depend on it.
#[inline]
pub(super) fn with_widest<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
