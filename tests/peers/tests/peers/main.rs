//! The peers as processes of their own.

mod all;
mod common;
mod epoll;
