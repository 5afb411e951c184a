import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import jdk.net.ExtendedSocketOptions;
import jdk.net.UnixDomainPrincipal;

/**
 * Java's lookup, with the JDK. The protocol is that of baseline.c, with two differences: Java cannot
 * use an inherited descriptor, so it connects to the path in its argument; and its answer is the
 * names of user and group, which it looks up each time.
 */
class Lookup {
    private static SocketChannel channel;

    private static UnixDomainPrincipal lookup() throws IOException {
        return channel.getOption(ExtendedSocketOptions.SO_PEERCRED);
    }

    private static double measure(int times, UnixDomainPrincipal expected) throws IOException {
        int wrong = 0;
        long start = System.nanoTime();
        for (int i = 0; i < times; i++) {
            if (!lookup().equals(expected)) wrong++;
        }
        long end = System.nanoTime();
        if (wrong > 0) throw new IOException(wrong + " of " + times + " answers were wrong");
        return (double) (end - start) / times;
    }

    public static void main(String[] arguments) throws IOException {
        channel = SocketChannel.open(UnixDomainSocketAddress.of(arguments[0]));
        UnixDomainPrincipal first = lookup();
        String user = first.user().getName(), group = first.group().getName();
        System.out.println("{\"user\":\"" + user + "\",\"group\":\"" + group + "\"}");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null;) {
            System.out.println(measure(Integer.parseInt(line.trim()), first));
        }
    }
}
