//! Parts of a request that are moved at once, and the locks that this takes.

use super::store::CHUNK_BYTES;

/// So many chunks are moved at once: 1 MiB, at any place.
const RUN_CHUNKS: usize = (1 << 20) / CHUNK_BYTES + 1;

/// The part of a request that lies in one chunk.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// From the start of the store.
    pub(super) offset: usize,
    /// Not 0.
    pub(super) len: usize,
}

/// Spans that follow one another and are moved at once, with their chunks' locks, which are taken in the order of the chunks.
pub(super) struct Run<G> {
    pub(super) span: Option<Span>,
    guards: [Option<G>; RUN_CHUNKS],
    count: usize,
}

impl<G> Default for Run<G> {
    fn default() -> Self {
        Self {
            span: None,
            guards: [const { None }; RUN_CHUNKS],
            count: 0,
        }
    }
}

impl<G> Run<G> {
    pub(super) fn is_full(&self) -> bool {
        self.count == RUN_CHUNKS
    }

    pub(super) fn add(&mut self, span: Span, guard: G) {
        if let Some(place) = self.guards.get_mut(self.count) {
            *place = Some(guard);
            self.count += 1;
            self.span.get_or_insert(Span { len: 0, ..span }).len += span.len;
        }
    }

    pub(super) fn let_go(&mut self) {
        self.span = None;
        for guard in self.guards.iter_mut().take(self.count) {
            *guard = None;
        }
        self.count = 0;
    }
}
