import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

/** Answers on the port in PORT, or 6001. Built as ./app.jar by ./make-jar. */
public class Service {
    public static void main(String[] arguments) throws Exception {
        String port = System.getenv("PORT");
        HttpServer server = HttpServer.create(new InetSocketAddress(port == null ? 6001 : Integer.parseInt(port)), 0);
        server.createContext("/", exchange -> {
            byte[] answer = "hello from a jar\n".getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
    }
}
