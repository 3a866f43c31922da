"""The kinds of faults that ordinary programs met, with the tests that hold each one.

A fault is fixed at its mechanism, and its neighbours are tested with it. This table says which test fails if a kind
comes back. Add a row for a new kind, and a test for a new neighbour; the test below fails for a name that is gone.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent


class Kind(NamedTuple):
    # What holds for the kind, in one sentence.
    rule: str
    # Names of tests by the file that has them, without the ending.
    tests: dict[str, tuple[str, ...]]


KINDS = {
    "exceptions of any shape": Kind(
        "The runtime needs nothing of an exception of the program.",
        {
            "core/test_exceptions": (
                "test_an_odd_failure_comes_out_of_its_group_and_the_others_are_cancelled",
                "test_an_odd_failure_comes_out_of_its_future_as_often_as_it_is_asked",
                "test_an_odd_failure_comes_out_of_race",
                "test_an_odd_failure_comes_out_of_offload",
                "test_an_odd_exception_interrupts",
                "test_notes_that_are_no_list_stay_as_they_are",
                "test_one_exception_of_many_threads_has_few_notes",
                "test_the_reason_of_a_cancellation_leaves_out_what_the_failure_came_from",
                "test_a_semaphore_that_fails_at_the_end_of_a_thread_is_a_failure_of_the_group",
                "test_an_error_of_a_trace_function_anywhere_in_the_end_is_a_failure_of_the_group",
            ),
            "core/test_cancelled_in_exception_groups": (
                "test_a_group_of_any_class_comes_out_without_its_cancellations",
                "test_a_group_of_any_class_with_nothing_but_cancellations_is_one",
                "test_a_group_that_is_nested_too_deeply_to_be_taken_apart_gives_its_failures",
            ),
            "net/test_tls": ("test_an_odd_interrupt_of_a_sendall_over_tls_is_raised_and_breaks_the_stream",),
        },
    ),
    "objects made before the runtime": Kind(
        "An object made before the patch parks like a later one, or is reported with its place.",
        {
            "patching/test_survey": ("test_patching_asks_no_object_that_it_looks_at",),
            "patching/test_references": (
                "test_a_call_that_was_looked_up_before_parks",
                "test_a_call_that_is_kept_in_objects_is_mended_and_put_back",
                "test_a_bound_method_that_is_given_to_the_first_spawn_parks",
                "test_the_patch_runs_no_code_of_a_partial",
            ),
            "patching/test_thread_locals": (
                "test_a_thread_local_of_a_class_made_before_is_per_virtual_thread",
                "test_data_of_a_class_made_before_end_with_their_thread_and_with_the_object",
            ),
            "patching/test_locks": ("test_a_lock_made_before_is_exchanged_wherever_it_is_kept",),
            "patching/test_leftovers": (
                "test_what_stays_is_reported_once_with_its_place",
                "test_a_file_that_was_opened_before_is_reported_if_its_reads_wait",
            ),
            "patching/test_instances": (
                "test_a_simple_queue_made_before_parks_and_keeps_its_items",
                "test_a_method_bound_before_to_a_socket_parks_and_is_put_back",
                "test_a_set_of_descriptors_made_before_parks",
                "test_executors_made_before_the_patch_of_threads_work_after_it",
            ),
            "patching/test_imports": ("test_a_module_that_is_imported_again_parks_and_is_put_back",),
            "processes/test_multiprocessing": (
                "test_locks_made_before_the_runtime_started_park_too",
                "test_locks_held_before_the_runtime_started_park_and_are_released",
                "test_a_recursive_lock_that_another_os_thread_holds_is_reported",
            ),
        },
    ),
    "what ended stays": Kind(
        "A group keeps what somebody can still ask for, and nothing else.",
        {
            "core/test_ended": (
                "test_a_result_that_nobody_holds_goes_when_the_member_ends",
                "test_as_completed_refuses_if_members_are_gone_and_tells_how_many_and_what_to_do",
                "test_an_independent_failure_that_was_taken_goes_with_its_frames",
                "test_what_an_operation_leaves_goes_by_reference_count",
                "test_what_a_member_set_in_its_context_goes_at_its_end",
            ),
        },
    ),
    "finalizers and other foreign code": Kind(
        "Foreign code runs where the fiber and the structures are consistent; all it does works or raises.",
        {
            "foreign_code/test_foreign_code": (
                "test_a_collection_while_greenlets_are_made_leaves_each_on_its_own_stack",
                "test_a_finalizer_that_waits_leaves_the_wait_it_came_into_its_wake_up",
                "test_a_finalizer_has_the_rlock_that_its_os_thread_queues_for",
                "test_the_finalizer_of_an_ended_thread_has_a_lock_that_is_held",
                "test_a_wait_inside_the_scheduler_is_refused",
                "test_a_trace_function_may_wait_wherever_it_comes",
                "test_a_trace_function_may_catch_the_exception_for_which_a_wait_was_interrupted",
            ),
            "foreign_code/test_finalizers": ("test_at_every_place", "test_at_every_place_on_an_os_thread"),
            "foreign_code/test_finalizer_places": ("test_a_finalizer_works_or_raises_and_the_place_completes",),
        },
    ),
    "timeouts and arguments": Kind(
        "Each call converts its arguments before it queues anything.",
        {
            "test_arguments": (
                "test_a_timeout_that_is_no_time_is_refused_before_anything_is_queued",
                "test_a_class_of_the_standard_library_refuses_nan_and_what_it_refuses_on_an_os_thread",
                "test_what_is_counted_is_a_whole_number",
                "test_a_duration_of_less_than_nothing_is_refused",
                "test_a_period_of_nothing_is_refused",
                "test_a_function_that_would_do_nothing_is_refused_at_the_call",
            ),
            "groups/test_dropped": ("test_a_block_that_is_dropped_is_reported_where_it_is_dropped",),
            "patching/test_concurrent_imports": ("test_a_missing_greenlet_is_named",),
        },
    ),
    "cancellation": Kind(
        "A cancellation is known in any wrapping, and a cleanup has its grace.",
        {
            "core/test_cancelled_in_exception_groups": (
                "test_a_scope_absorbs_a_group_of_cancellations",
                "test_a_member_that_ends_with_failures_and_cancellations_fails_with_the_failures",
                "test_a_loser_of_a_race_that_is_cancelled_in_an_except_star_is_dropped",
            ),
            "core/test_cleanup_grace": (
                "test_what_the_frames_of_a_cancelled_thread_leave_is_cleaned_up_before_its_group_ends",
                "test_a_generator_that_is_closed_before_any_delivery_has_no_grace",
            ),
        },
    ),
    "sockets and files": Kind(
        "The mode of a descriptor is that of the program, and no data are taken for drained that are not.",
        {
            "net/test_sockets": (
                "test_a_mode_set_by_descriptor_is_the_mode_of_the_call",
                "test_what_lies_behind_a_place_where_reads_stop_is_received",
                "test_only_of_plain_tcp_a_short_read_is_taken_for_all_there_was",
            ),
            "net/test_closing": (
                "test_a_select_finds_a_socket_ready_that_was_closed_beside_others",
                "test_a_select_of_a_socket_that_is_closed_ends",
            ),
            "matrix/test_readiness": ("test_nothing_happened_after_a_descriptor_of_the_call_was_closed",),
            "net/test_listeners": ("test_workers_that_share_a_listener_do_not_block_in_accept",),
            "files/test_buffers": (
                "test_a_buffer_made_by_a_program_is_read_by_one_thread_at_a_time",
                "test_data_that_come_at_once_are_enough_for_all_that_wait_for_a_buffer",
            ),
        },
    ),
    "OS threads and processes": Kind(
        "C code, other OS threads, forks and the exit meet a runtime without a crash or a hang.",
        {
            "os_threads/test_os_threads": (
                "test_c_code_survives_the_ident_of_a_virtual_thread",
                "test_the_interpreter_ends_with_carriers_on_daemon_os_threads",
                "test_a_carrier_that_starts_while_the_interpreter_ends_does_not_crash_it",
                "test_a_program_may_close_all_its_descriptors",
                "test_programs_do_not_see_the_os_threads_of_the_runtime",
                "test_a_carrier_ends_with_an_os_thread_that_threading_did_not_start",
                "test_a_pool_that_is_left_open_serves_one_run_after_the_other",
            ),
            "aio/test_calls": ("test_programs_do_not_see_the_os_thread_of_the_loop",),
            "core/test_contexts": ("test_each_thread_has_a_decimal_context_with_the_settings_of_its_parent",),
            "runtime/test_fork_handlers": (
                "test_a_handler_that_waits_runs_no_thread_of_the_parent_in_the_child",
                "test_a_handler_of_before_the_runtime_spawns_and_unparks_in_the_runtime_of_the_child",
                "test_a_handler_starts_the_runtime_of_a_child_that_was_forked_by_an_os_thread",
                "test_a_handler_in_the_child_of_a_virtual_thread_may_set_signals",
            ),
            "runtime/test_fork_imports": ("test_a_child_imports_what_another_thread_of_the_parent_was_importing",),
            "runtime/test_process": ("test_what_a_handler_raises_ends_a_member_that_pins_the_carrier",),
        },
    ),
    "meeting other tools": Kind(
        "A runtime that was started by a first use gives way.",
        {"runtime/test_giving_way": ("test_a_runtime_that_was_started_by_a_group_gives_way_to_run",)},
    ),
    "dumps and circles": Kind(
        "To inspect a program does not stop it, and a circle of locks is reported whatever else lives.",
        {
            "debug/test_inquiry": ("test_every_ready_thread_runs_between_two_slices",),
            "debug/test_garbage_collector": (
                "test_a_large_dump_promotes_what_it_makes",
                "test_frozen_objects_are_counted_once",
            ),
            "debug/test_circles": (
                "test_the_members_of_a_circle_get_a_deadlock_error",
                "test_locks_that_are_acquired_in_another_way_are_a_circle",
                "test_an_os_thread_that_lives_does_not_hide_a_circle",
                "test_a_writer_and_a_reader_are_a_circle",
            ),
            "debug/test_stalls": (
                "test_a_c_function_is_named",
                "test_a_call_that_keeps_the_gil_is_noticed_whatever_ran_before",
                "test_a_thread_without_a_frame_is_reported_with_the_place_of_the_spawn",
            ),
            "debug/test_serving": ("test_a_directory_that_is_taken_is_not_used_and_is_a_warning",),
        },
    ),
    "copies": Kind(
        "An object that its users must share can be neither copied nor pickled.",
        {"sync/test_copies": ("test_a_copy_is_refused",)},
    ),
    "standard library replaced by others": Kind(
        "The patch leaves an object alone that replaced a call, and names a library that patched before.",
        {
            "patching/test_foreign": (
                "test_an_object_that_replaces_a_call_stays_what_it_is_elsewhere",
                "test_a_wrapper_of_a_call_stays_what_it_is_elsewhere",
                "test_a_process_that_another_library_has_patched_is_refused",
                "test_a_class_that_is_replaced_by_an_unrelated_one_is_refused",
            ),
        },
    ),
    "explore and inject_cancel": Kind(
        "An exploration says what it cannot stop, and a shrunk schedule has the fewest switches.",
        {
            "testing/test_explore": (
                "test_a_signal_handler_is_a_thread_of_the_run",
                "test_an_installed_package_that_is_not_stopped_is_reported",
                "test_abandoned_runs_write_nothing",
            ),
            "testing/test_explore_shrinking": (
                "test_shrinking_ends_at_the_least_number_of_switches",
                "test_shrinking_goes_on_if_no_schedule_with_one_switch_less_fails",
            ),
            "testing/test_explore_patching": (
                "test_a_pool_that_was_made_before_is_explored",
                "test_a_pool_of_multiprocessing_that_was_made_before_is_explored",
                "test_a_pool_of_multiprocessing_that_is_made_in_the_run_is_explored",
            ),
            "testing/test_clock": ("test_a_wait_that_ends_after_its_deadline_ends_on_virtual_time",),
            "testing/test_injection": (
                "test_a_child_process_that_is_left_running_is_reported",
                "test_a_permit_that_is_given_back_too_often_is_reported",
                "test_a_cancellation_that_is_swallowed_is_reported",
                "test_the_repr_of_a_half_made_object_is_not_called",
            ),
        },
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_a_kind_exist(kind):
    missing = []
    for name, tests in KINDS[kind].tests.items():
        source = ast.parse((TESTS / f"{name}.py").read_text())
        found = {node.name for node in source.body if isinstance(node, ast.FunctionDef)}
        missing += [f"{name}.py::{test}" for test in tests if test not in found]
    assert [] == missing
