//! Where members of the kernel's structures are, for who reads no memory: the probes of `trace`.

use std::path::Path;

use crate::facts::Gap;

use super::btf::Btf;
use super::open::read_types;

/// The types of the running kernel and its driver.
#[derive(Debug)]
pub(crate) struct Types(Btf);

impl Types {
    /// Reads them, for members of these structures.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn open(structures: &[&'static str]) -> Result<Self, Gap> {
        let folder = Path::new("/sys/kernel/btf");
        let kernel = read_types(&folder.join("vmlinux"))?;
        let module = read_types(&folder.join("ublk_drv"))?;
        let btf = Btf::parse(kernel, module, structures).ok_or_else(|| Gap {
            layer: crate::facts::Layer::Kernel,
            whole: true,
            what: format!(
                "{}: written in a way that this version does not know",
                folder.display()
            ),
            remedy: "this kernel is newer than this program: a newer one may read it".to_owned(),
        })?;
        Ok(Self(btf))
    }

    /// Where a member is: bytes from the beginning of its structure, and its size. The member may be a path through nested
    /// structures.
    pub(crate) fn member(&self, structure: &str, path: &str) -> Option<(usize, usize)> {
        let field = self.0.field(structure, path)?;
        Some((field.offset, field.size))
    }
}
