//! One case for each bug that was found, named after what went wrong.

mod a_close_frame_was_sent_twice;
mod a_deadline_moved_on_each_end_of_stream;
mod a_fresh_deadline_counted_as_expired;
mod a_message_that_compression_made_longer_was_refused;
mod bytes_queued_late_in_a_pass_waited_for_the_next;
mod last_words_were_lost_on_a_half_closed_stream;
mod server;
