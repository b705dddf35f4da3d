//! placeholder for the API under way
#![allow(missing_docs)]
pub async fn yield_now() {}
pub mod time {
    pub fn now() -> klib::ktime::Ktime {
        klib::ktime::Ktime(0)
    }
    pub fn sleep_until(_t: klib::ktime::Ktime) -> std::future::Pending<()> {
        std::future::pending()
    }
}
