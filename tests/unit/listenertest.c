/*
 * listenertest.c: sockets, who is let in, and as whom
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include <glib/gstdio.h>
#include <libvirt/virterror.h>
#include <sys/un.h>

#include "checkpoint_backend.h"
#include "checkpoint_error.h"
#include "checkpoint_gateway.h"
#include "checkpoint_identity.h"
#include "checkpoint_listener.h"
#include "remotetestlib.h"

typedef struct testPlace {
    gchar *dir;
    gchar *path;         /* ours */
    gchar *readOnlyPath; /* ours */
    gchar *backend;
} testPlace;

static void
testPlaceSetUp(testPlace *place, gconstpointer data)
{
    place->dir = g_dir_make_tmp("vc-listener-XXXXXX", NULL);
    g_assert_nonnull(place->dir);
    g_assert_cmpint(chmod(place->dir, 0711), ==, 0);
    place->path = g_build_filename(place->dir, "sock", NULL);
    place->readOnlyPath = g_build_filename(place->dir, "sock-ro", NULL);
    place->backend = g_build_filename(place->dir, "backend", NULL);
}

static void
testPlaceTearDown(testPlace *place, gconstpointer data)
{
    g_autofree gchar *backendReadOnly = g_strconcat(place->backend, "-ro", NULL);

    unlink(place->backend);
    unlink(backendReadOnly);
    /* Fails if a test left anything else behind. */
    g_assert_cmpint(rmdir(place->dir), ==, 0);
    g_free(place->dir);
    g_free(place->path);
    g_free(place->readOnlyPath);
    g_free(place->backend);
}

static int
testListen(const gchar *path, mode_t mode)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(chmod(path, mode), ==, 0);
    g_assert_cmpint(listen(fd, 10), ==, 0);
    return fd;
}

static int
testConnect(const gchar *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    g_assert_cmpint(connect(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    return fd;
}

static int
testAccept(int fd)
{
    gint64 until = g_get_monotonic_time() + TEST_PATIENCE_USEC;
    int got = -1;

    while ((got = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) < 0) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_main_context_iteration(NULL, FALSE);
    }
    return got;
}

static void
testListenerFiles(testPlace *place, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    virCheckpointListener *listener =
        virCheckpointListenerNew(place->path, 0640, &error);
    virCheckpointListener *second = NULL;
    struct stat sb;

    g_assert_no_error(error);
    g_assert_cmpuint(virCheckpointListenerCount(listener), ==, 2);
    g_assert_cmpint(stat(place->readOnlyPath, &sb), ==, 0);
    g_assert_cmpuint(sb.st_mode & 0777, ==, 0640);
    g_assert_true(virCheckpointListenerHasPath(listener, place->readOnlyPath));
    g_assert_false(virCheckpointListenerHasPath(listener, place->backend));

    second = virCheckpointListenerNew(place->path, 0640, &error);
    g_assert_null(second);
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY);
    g_assert_nonnull(strstr(error->message, "already running"));
    g_clear_error(&error);

    /* A daemon that was killed: no descriptor, but the files. */
    virCheckpointListenerFree(listener);
    listener = virCheckpointListenerNew(place->path, 0640, &error);
    g_assert_no_error(error);
    close(testConnect(place->path));
    virCheckpointListenerRemoveFiles(listener);
    virCheckpointListenerFree(listener);
}

/* A socket of somebody else that answers, and a file that is no socket, stay. */
static void
testListenerForeign(testPlace *place, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    int fd = testListen(place->path, 0600);

    g_assert_null(virCheckpointListenerNew(place->path, 0640, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED);
    g_assert_nonnull(strstr(error->message, "already running"));
    g_clear_error(&error);
    close(testConnect(place->path));
    close(fd);
    unlink(place->path);

    g_assert_true(g_file_set_contents(place->readOnlyPath, "mine", -1, NULL));
    g_assert_null(virCheckpointListenerNew(place->path, 0640, &error));
    g_assert_nonnull(error);
    g_assert_true(g_file_test(place->readOnlyPath, G_FILE_TEST_IS_REGULAR));
    g_assert_false(g_file_test(place->path, G_FILE_TEST_EXISTS));
    unlink(place->readOnlyPath);
}

static void
testBackendPaths(testPlace *place, gconstpointer data)
{
    g_autofree gchar *link = g_build_filename(place->dir, "link", NULL);
    g_autofree gchar *through = g_build_filename(link, "sock", NULL);
    g_autofree gchar *uri = virCheckpointBackendUri("/a b/c?d&e#f");

    g_assert_cmpint(symlink(place->dir, link), ==, 0);
    g_assert_true(virCheckpointBackendSamePath(place->path, through));
    g_assert_false(virCheckpointBackendSamePath(place->path, place->readOnlyPath));
    unlink(link);
    g_assert_true(g_str_has_suffix(uri, "?socket=/a%20b/c%3Fd%26e%23f"));
}

/* A gateway with no hooks between a place's sockets. */
typedef struct testServer {
    virCheckpointListener *listener;
    virCheckpointGateway *gateway;
} testServer;

static void
testServerStart(testServer *server, const testPlace *place)
{
    virCheckpointGatewayConfig config = {.backend = place->backend, .maxClients = 15};
    g_autoptr(GError) error = NULL;

    server->listener = virCheckpointListenerNew(place->path, 0666, &error);
    g_assert_no_error(error);
    server->gateway = virCheckpointGatewayNew(&config, server->listener);
}

static void
testServerStop(testServer *server)
{
    virCheckpointGatewayStopAccepting(server->gateway);
    virCheckpointListenerRemoveFiles(server->listener);
    virCheckpointGatewayCloseClients(server->gateway);
    g_assert_cmpuint(virCheckpointGatewayCountClients(server->gateway), ==, 0);
    virCheckpointGatewayFree(server->gateway);
    virCheckpointListenerFree(server->listener);
    testSettle();
}

static void
testGatewayClients(testPlace *place, gconstpointer data)
{
    g_autoptr(GByteArray) ping = testBytes(TEST_PING);
    g_autoptr(GByteArray) open =
        testBytes("00000024 20008086 00000001 00000001 00000000 00000000 00000000 "
                  "00000000 00000000");
    int backend = testListen(place->backend, 0666);
    testServer server;
    int clients[20];
    guint i;

    testServerStart(&server, place);
    for (i = 0; i < G_N_ELEMENTS(clients); i++)
        clients[i] = testConnect(i % 2 ? place->readOnlyPath : place->path);
    for (i = 0; i < G_N_ELEMENTS(clients); i++) {
        int accepted = testAccept(backend);

        testSendBytes(accepted, ping);
        close(accepted);
    }
    for (i = 0; i < G_N_ELEMENTS(clients); i++) {
        testExpect(clients[i], ping);
        testExpectEnd(clients[i]);
        close(clients[i]);
    }
    testSettle();
    g_assert_cmpuint(virCheckpointGatewayCountClients(server.gateway), ==, 0);

    /* No read-only socket at the backend: OPEN of a read-only client is made so. */
    clients[0] = testConnect(place->readOnlyPath);
    clients[1] = testAccept(backend);
    testSendBytes(clients[0], open);
    open->data[open->len - 1] = 1;
    testExpect(clients[1], open);
    close(clients[0]);
    testExpectEnd(clients[1]);
    close(clients[1]);
    close(backend);
    testServerStop(&server);
}

/* Nobody behind the backend's path: the first call is answered with the reason. */
static void
testGatewayRefusal(testPlace *place, gconstpointer data)
{
    g_autoptr(GByteArray) call =
        testBytes("0000001c 20008086 00000001 00000042 00000000 00000005 00000000");
    g_autoptr(GByteArray) got = NULL;
    g_autofree gchar *text = g_strdup_printf(
        "Failed to connect socket to '%s': No such file or directory", place->backend);
    testServer server;
    int client = -1;

    testServerStart(&server, place);
    client = testConnect(place->path);
    testSendBytes(client, call);
    got = testReceive(client, 4096);
    g_assert_cmpuint(got->len, >, 60);
    g_assert_cmpuint(virCheckpointFrameGetWord(got->data + 12), ==, 66);
    g_assert_cmpuint(virCheckpointFrameGetWord(got->data + 16), ==, 1);
    g_assert_cmpuint(virCheckpointFrameGetWord(got->data + 20), ==, 5);
    g_assert_cmpuint(virCheckpointFrameGetWord(got->data + 24), ==, 1);
    g_assert_cmpuint(virCheckpointFrameGetWord(got->data + 28), ==,
                     VIR_ERR_SYSTEM_ERROR);
    g_assert_cmpmem(got->data + 44, strlen(text), text, strlen(text));
    close(client);
    testServerStop(&server);
}

typedef struct testSomebody {
    virCheckpointIdentity identity;
    const gchar *path;
    int fd;
    GError *error;
} testSomebody;

static gpointer
testSomebodyThread(gpointer data)
{
    testSomebody *somebody = data;

    somebody->fd = virCheckpointIdentityConnect(&somebody->identity, somebody->path,
                                                &somebody->error);
    return NULL;
}

/* Another user is that user to the listener, groups included, and this process is not
 * changed; a socket that only root may open is closed to that user. */
static void
testIdentity(testPlace *place, gconstpointer data)
{
    gid_t groups[] = {4242, 4243};
    testSomebody somebody = {
        .identity = {.uid = 65534, .gid = 65533},
        .path = place->backend,
    };
    g_autoptr(virCheckpointIdentity) seen = NULL;
    g_autoptr(GError) error = NULL;
    int backend = -1;
    int accepted = -1;

    if (geteuid() != 0) {
        g_test_skip("needs root");
        return;
    }
    backend = testListen(place->backend, 0666);
    somebody.identity.groups = g_array_new(FALSE, FALSE, sizeof(gid_t));
    g_array_append_vals(somebody.identity.groups, groups, 2);
    g_thread_join(g_thread_new("somebody", testSomebodyThread, &somebody));
    g_assert_no_error(somebody.error);
    accepted = testAccept(backend);
    seen = virCheckpointIdentityOfPeer(accepted, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(seen->uid, ==, 65534);
    g_assert_cmpuint(seen->gid, ==, 65533);
    g_assert_cmpmem(seen->groups->data, seen->groups->len * sizeof(gid_t), groups,
                    sizeof(groups));
    g_assert_cmpint(seen->pid, ==, getpid());
    g_assert_cmpuint(geteuid(), ==, 0);
    close(accepted);
    close(somebody.fd);

    g_assert_cmpint(chmod(place->backend, 0660), ==, 0);
    g_thread_join(g_thread_new("somebody", testSomebodyThread, &somebody));
    g_assert_cmpint(somebody.fd, ==, -1);
    g_assert_error(somebody.error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR);
    g_assert_true(g_str_has_suffix(somebody.error->message, "Permission denied"));
    g_error_free(somebody.error);
    g_array_unref(somebody.identity.groups);
    close(backend);
}

#define ADD(name, func)                                                                \
    g_test_add(name, testPlace, NULL, testPlaceSetUp, func, testPlaceTearDown)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("/listener/files-and-a-second-instance", testListenerFiles);
    ADD("/listener/foreign-sockets-stay", testListenerForeign);
    ADD("/listener/backend-paths", testBackendPaths);
    ADD("/listener/clients-of-both-sockets", testGatewayClients);
    ADD("/listener/no-backend", testGatewayRefusal);
    ADD("/listener/identity-of-another-user", testIdentity);
    return g_test_run();
}
