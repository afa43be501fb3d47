/* serial.c: neap.ext.serial.core: a serial port whose read waits in the loop. Also the model of a C extension: it is built against neap_ext.h, links
   with nothing, and other tasks run while it waits.

   A path that is no terminal (a FIFO, a recorded file's pipe) is read as it is: handy for trying things out, and for the spec. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include <neap_ext.h>

#define PORT_META "neap.ext.serial.port"

typedef struct port {
    int fd;
} port;

static port *check_port(lua_State *L) {
    port *p = luaL_checkudata(L, 1, PORT_META);
    if (p->fd < 0) luaL_error(L, "the serial port is closed");
    return p;
}

static int io_error(lua_State *L, const char *path) {
    int code = errno;
    const char *hint = code == EACCES   ? " (add yourself to the group that owns it: usermod -aG dialout USER, then log in again)"
                       : code == ENOENT ? " (is the device plugged in? ls /dev/ttyACM* /dev/ttyUSB*)"
                                        : "";
    return neap_ext(L)->raise(L, "io", code == ENOENT || code == EIO, lua_pushfstring(L, "%s: %s%s", path, strerror(code), hint));
}

static speed_t speed_of(lua_Integer baud) {
    static const struct {
        lua_Integer baud;
        speed_t speed;
    } table[] = {{1200, B1200},   {2400, B2400},     {4800, B4800},     {9600, B9600},     {19200, B19200},  {38400, B38400},
                 {57600, B57600}, {115200, B115200}, {230400, B230400}, {460800, B460800}, {921600, B921600}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].baud == baud) return table[i].speed;
    return 0;
}

static int l_open(lua_State *L) { /* open(path, baud) -> port */
    const char *path = luaL_checkstring(L, 1);
    speed_t speed = speed_of(luaL_optinteger(L, 2, 115200));
    luaL_argcheck(L, speed != 0, 2, "a usual baud rate: 9600, 19200, 38400, 57600, 115200, ...");
    port *p = lua_newuserdatauv(L, sizeof *p, 0);
    p->fd = -1;
    luaL_setmetatable(L, PORT_META);
    p->fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC); /* both ways: a FIFO then never ends when its writer goes */
    if (p->fd < 0 && (errno == EACCES || errno == EROFS)) p->fd = open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (p->fd < 0) return io_error(L, path);
    struct stat st;
    if (fstat(p->fd, &st) == 0 && S_ISREG(st.st_mode)) return luaL_error(L, "%s is an ordinary file, not a port; `neap import` reads files", path);
    struct termios t;
    if (tcgetattr(p->fd, &t) == 0) {
        cfmakeraw(&t);
        t.c_cflag |= CLOCAL | CREAD;
        cfsetispeed(&t, speed);
        cfsetospeed(&t, speed);
        if (tcsetattr(p->fd, TCSANOW, &t)) return io_error(L, path);
    }
    return 1;
}

static int l_read(lua_State *L);
static int readable(lua_State *L, int status, lua_KContext ctx) {
    lua_settop(L, 2); /* the wait is done with; port and timeout remain */
    return l_read(L);
}

static int l_read(lua_State *L) { /* port:read([timeout]) -> what has arrived, at least a byte; nil when the device is gone. Waits. */
    port *p = check_port(L);
    lua_Number timeout = luaL_optnumber(L, 2, -1);
    lua_settop(L, 2);
    char chunk[4096];
    ssize_t n = read(p->fd, chunk, sizeof chunk);
    if (n > 0) {
        lua_pushlstring(L, chunk, (size_t)n);
        return 1;
    }
    if (n == 0 || errno == EIO || errno == ENXIO) return 0; /* unplugged */
    if (errno != EAGAIN && errno != EINTR) return io_error(L, "serial port");
    return neap_ext(L)->wait_fd(L, "serial:read", p->fd, 0, timeout, readable);
}

static int l_write(lua_State *L) { /* port:write(text) -> bytes taken (a device that does not keep up takes fewer) */
    port *p = check_port(L);
    size_t len;
    const char *text = luaL_checklstring(L, 2, &len);
    ssize_t n = write(p->fd, text, len);
    if (n < 0 && errno != EAGAIN) return io_error(L, "serial port");
    lua_pushinteger(L, n < 0 ? 0 : (lua_Integer)n);
    return 1;
}

static int l_close(lua_State *L) { /* close, __close and __gc */
    port *p = luaL_checkudata(L, 1, PORT_META);
    if (p->fd >= 0) close(p->fd);
    p->fd = -1;
    return 0;
}

int luaopen_neap_ext_serial_core(lua_State *L) {
    static const luaL_Reg fns[] = {{"open", l_open}, {NULL, NULL}};
    static const luaL_Reg methods[] = {{"read", l_read}, {"write", l_write}, {"close", l_close}, {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", l_close}, {"__close", l_close}, {NULL, NULL}};
    neap_ext(L); /* refuses a plain lua here, not in the middle of the work */
    luaL_newmetatable(L, PORT_META);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, fns);
    return 1;
}
