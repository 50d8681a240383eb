//! A block device in fifteen lines: a gigabyte that reads as zeroes.

struct Zeroes;

impl oxublk::Disk for Zeroes {
    fn size(&self) -> u64 {
        1 << 30
    }
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> std::io::Result<()> {
        buf.fill(0);
        Ok(())
    }
    fn write_at(&self, _buf: &[u8], _offset: u64) -> std::io::Result<()> {
        Ok(())
    }
}

fn main() -> oxublk::Result<()> {
    oxublk::serve(Zeroes)
}
