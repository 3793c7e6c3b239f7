// uWebSockets' echo: each message goes back to its sender, as in its own examples/EchoServer.cpp.
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
        .open = nullptr,
        .message = [](auto *socket, std::string_view message, uWS::OpCode code) { socket->send(message, code); }
    });
    app.listen("127.0.0.1", std::atoi(arguments[1]), [](auto *listening) {
        if (!listening) std::exit(1);
    });
    app.run();
}
