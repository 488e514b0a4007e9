"""A lifecycle node that no transition can end, and that answers while it is being configured.

rclpy swallows exceptions of transition callbacks without a word, and lets the error of a transition that is not
possible in the node's state (activating an active node) leave the executor, which ends the process. Here the first
are logged and answered, and the second is answered with false. Its transitions happen in the executor's thread, where
nothing else is answered meanwhile; what takes long is prepared before them.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.task import Future

from localizer_ros.core.types import LocalizerError


class ManagedNode(LifecycleNode):
    """A lifecycle node of four steps, each of which may raise.

    A LocalizerError of a step is logged in one line and makes the transition fail, which leaves the node in the state
    it was in; any other exception is logged with its traceback and leaves the node unconfigured.

    Args:
        name: name of the node.
        arguments: what ``rclpy.node.Node`` takes.
    """

    def __init__(self, name: str, **arguments: Any) -> None:
        super().__init__(name, **arguments)
        self._preparing: Any = None
        self.failure = ""
        """Why the last transition failed, in one line; empty when it did not."""
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = self._refusing(service.callback)
                # A transition that waits keeps nobody else waiting.
                service.callback_group = ReentrantCallbackGroup()
                service.callback_group.add_entity(service)

    async def start(self) -> bool:
        """Configure and activate; False where that is not possible. A task for the node's executor."""
        await self._prepared()
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() is success and self.trigger_activate() is success

    # --- the steps ---

    def prepare(self, prepared: Callable[[], None]) -> None:
        """Begin what configuring has to wait for, in another thread, which calls ``prepared`` at its end."""
        prepared()

    def configure(self) -> None:
        """Make everything that does not need input, after waiting for what is not prepared."""
        raise NotImplementedError

    def activate(self) -> None:
        """Take input."""
        raise NotImplementedError

    def deactivate(self) -> None:
        """Take no more input."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Undo everything, from any state, however far the steps before came."""
        raise NotImplementedError

    # --- called by rclpy ---

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The step ``configure``; what a failed one made is undone."""

        def configure() -> TransitionCallbackReturn:
            self.configure()
            return super(ManagedNode, self).on_configure(state)

        result = self._guarded("configure", configure)
        if result is TransitionCallbackReturn.FAILURE:
            self.teardown()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The publishers, then the step ``activate``."""

        def activate() -> TransitionCallbackReturn:
            result = super(ManagedNode, self).on_activate(state)
            self.activate()
            return result

        return self._guarded("activate", activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The step ``deactivate``, then the publishers: an answer in work still goes out."""

        def deactivate() -> TransitionCallbackReturn:
            self.deactivate()
            return super(ManagedNode, self).on_deactivate(state)

        return self._guarded("deactivate", deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The step ``teardown``."""
        return self._guarded("clean up", self._torn_down)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The step ``teardown``."""
        return self._guarded("shut down", self._torn_down)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The step ``teardown``, after an unexpected error in another one."""
        why = self.failure
        result = self._guarded("recover", self._torn_down)
        self.failure = self.failure or why
        return result

    def destroy_node(self) -> None:
        """Undo everything that is still there, then the node."""
        try:
            self.teardown()
        finally:
            # rclpy leaves the state machine, and with it the node's services on the network, to the garbage collector.
            self._state_machine.destroy_when_not_in_use()
            super().destroy_node()

    def _torn_down(self) -> TransitionCallbackReturn:
        self.teardown()
        return TransitionCallbackReturn.SUCCESS

    def _guarded(
        self, name: str, transition: Callable[[], TransitionCallbackReturn]
    ) -> TransitionCallbackReturn:
        self.failure = ""
        try:
            return transition()
        except LocalizerError as error:
            self.failure = str(error)
            self.get_logger().error(f"cannot {name}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"
            self.get_logger().error(f"cannot {name}:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    async def _prepared(self) -> None:
        """Prepare to configure where that is the next step, while the executor serves others."""
        if self._state_machine.current_state[1] != "unconfigured":
            return
        if self._preparing is None:
            self._preparing = future = Future()

            def prepared() -> None:
                future.set_result(None)
                if self.executor is not None:
                    # A task that waits is looked at when something happens.
                    self.executor.wake()

            try:
                self.prepare(prepared)
            except Exception:
                # Configuring meets it again, and is where it is told.
                prepared()
        future = self._preparing
        await future
        self._preparing = None

    def _refusing(
        self, change_state: Callable[[ChangeState.Request, ChangeState.Response], ChangeState.Response]
    ) -> Callable[[ChangeState.Request, ChangeState.Response], Awaitable[ChangeState.Response]]:
        """``change_state``, prepared, and answering false where rclpy raises."""

        async def answer(
            request: ChangeState.Request, response: ChangeState.Response
        ) -> ChangeState.Response:
            wanted = request.transition
            if wanted.label == "configure" or (
                not wanted.label and wanted.id == Transition.TRANSITION_CONFIGURE
            ):
                await self._prepared()
            try:
                return change_state(request, response)
            except RuntimeError as error:
                # RCLError, which rclpy does not export, is one.
                name = wanted.label or f"transition {wanted.id}"
                self.get_logger().warning(f"{name} is not possible in this state: {error}")
                response.success = False
                return response

        return answer
