-- A database of schema 2, as the version that had it left it: ids used again, keys, a purged topic.
BEGIN TRANSACTION;
CREATE TABLE epochs (
            number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, first INTEGER NOT NULL
        );
INSERT INTO "epochs" VALUES(1,'hb38m4c6',1);
CREATE TABLE placed (
            topic INTEGER NOT NULL, position INTEGER NOT NULL, id TEXT, PRIMARY KEY (topic, position)
        ) WITHOUT ROWID;
INSERT INTO "placed" VALUES(1,1,NULL);
INSERT INTO "placed" VALUES(1,2,'x');
INSERT INTO "placed" VALUES(1,3,'x');
INSERT INTO "placed" VALUES(2,3,'x');
INSERT INTO "placed" VALUES(2,4,'y');
CREATE TABLE records (
            position INTEGER PRIMARY KEY, id TEXT NOT NULL, own INTEGER NOT NULL,
            dedup TEXT, private INTEGER NOT NULL, published REAL NOT NULL,
            topics TEXT NOT NULL, frame BLOB NOT NULL
        );
INSERT INTO "records" VALUES(1,'hb38m4c6-1',0,'1
k',0,1000.0,'1',X'69643A20686233386D3463362D310A646174613A20310A0A');
INSERT INTO "records" VALUES(2,'x',1,NULL,0,1000.0,'1',X'69643A20780A646174613A20320A0A');
INSERT INTO "records" VALUES(3,'x',1,'1 2
l',0,1000.0,'2 1',X'69643A20780A646174613A20330A0A');
INSERT INTO "records" VALUES(4,'y',1,NULL,1,1000.0,'2',X'69643A20790A646174613A20340A0A');
CREATE TABLE state (
            last INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
            floor INTEGER NOT NULL, trims INTEGER NOT NULL
        );
INSERT INTO "state" VALUES(5,4,69,0,1);
CREATE TABLE topics (
            number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
            events INTEGER NOT NULL, bytes INTEGER NOT NULL, trimmed INTEGER NOT NULL
        );
INSERT INTO "topics" VALUES(1,'a',3,54,0);
INSERT INTO "topics" VALUES(2,'b',2,30,0);
INSERT INTO "topics" VALUES(3,'gone',0,0,5);
CREATE INDEX empty_topics ON topics (trimmed) WHERE events = 0;
CREATE UNIQUE INDEX dedup_keys ON records (dedup) WHERE dedup IS NOT NULL;
CREATE INDEX placed_ids ON placed (id, topic, position) WHERE id IS NOT NULL;
COMMIT;
PRAGMA application_id = 1211323474;
PRAGMA user_version = 2;
