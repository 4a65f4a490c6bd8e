//! Pages that show what went wrong, for whoever develops an app. A server has none unless it is given them.

/// Knows what went wrong.
pub trait ErrorPages: Send + Sync {
    /// An HTML page about a request that failed, or with `None` about the app's last load; `None` if nothing is known.
    fn page(&self, request: Option<&str>) -> Option<String>;
}
