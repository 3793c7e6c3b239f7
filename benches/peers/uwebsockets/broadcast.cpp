// uWebSockets' topic publish: each message goes to everyone who is connected, the sender among them.
#include "App.h"
#include <cstdlib>

struct Nothing {};

int main(int, char **arguments) {
    uWS::App app;
    app.ws<Nothing>("/*", {
        .compression = uWS::DISABLED,
        .maxPayloadLength = 16 * 1024 * 1024,
        .idleTimeout = 120,
        .maxBackpressure = 64 * 1024 * 1024,
        .upgrade = nullptr,
        .open = [](auto *socket) { socket->subscribe("all"); },
        .message = [&app](auto *, std::string_view message, uWS::OpCode code) { app.publish("all", message, code); }
    });
    app.listen("127.0.0.1", std::atoi(arguments[1]), [](auto *listening) {
        if (!listening) std::exit(1);
    });
    app.run();
}
